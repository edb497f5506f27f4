"""Which tokens of a rendered conversation the assistant said: the ones a loss is taken on.

A template that marks the assistant's text (`{% generation %}`) is believed. For the others a turn is what rendering
adds: from where the generation prompt ends to where the rendered turn ends. Either way the turn's end token belongs to
it, because the model must learn to stop, and the template's own white space behind that token does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.data.faults import RowFault
from tunesmith.data.rows import Conversation
from tunesmith.data.template import ChatTemplate, Span
from tunesmith.data.tokens import Encoded
from tunesmith.errors import DataError

OPEN_END = -1
"""End of a span that reaches to the turn's end token."""

MAY_BE_LEFT_OUT = ("tool_calls", "thinking")
"""Keys of messages that many templates have never heard of."""


def render_for_training(template: ChatTemplate, row: Conversation) -> tuple[str, list[Span]]:
    """The whole conversation as text and the character spans of the assistant's turns.

    RowFault if the template drops the row's tools, tool calls or thoughts, or changes earlier text when a conversation
    goes on; DataError if it refuses the messages.
    """
    text, marked = template.render_marked(row.messages, tools=row.tools)
    if row.tools and text == template.render(row.messages, add_generation_prompt=False):
        raise RowFault("tools", "the chat template leaves tools out; use a template that renders them")
    for key in MAY_BE_LEFT_OUT:
        _refuse_left_out(template, row, text, key)
    return text, marked if template.marks_generation else _turns(template, row, text)


def _refuse_left_out(template: ChatTemplate, row: Conversation, text: str, key: str) -> None:
    """RowFault if `text` is the same without what the messages have under `key`, wherever they have it.

    A template may drop thoughts of earlier turns, as it does when it is talked to; dropping all of them is a fault.
    """
    given = [number for number, message in enumerate(row.messages) if message.get(key)]
    if not given:
        return
    without = [{name: value for name, value in message.items() if name != key} for message in row.messages]
    try:
        same = template.render(without, False, row.tools) == text
    except DataError:
        return  # the template insists on it
    if same:
        raise RowFault(f"messages[{given[0]}].{key}", "the chat template leaves it out; use one that renders it")


def _turns(template: ChatTemplate, row: Conversation, text: str) -> list[Span]:
    spans: list[Span] = []
    for number, message in enumerate(row.messages):
        if message["role"] != "assistant":
            continue
        before = template.render(row.messages[:number], True, row.tools)
        after = template.render(row.messages[: number + 1], False, row.tools)
        if not text.startswith(before):
            raise RowFault(
                f"messages[{number}]",
                "the chat template changes earlier text when a conversation goes on, so it cannot be seen what the "
                "assistant said here; use a template with {% generation %} marks, or one row for each answer",
            )
        spans.append((len(before), len(after) if text.startswith(after) else OPEN_END))
    return spans


def assistant_mask(text: str, encoded: Encoded, spans: Sequence[Span], end_ids: frozenset[int]) -> list[int]:
    """1 for each token that overlaps a span or is its end token, else 0."""
    ids, offsets = encoded.ids, encoded.offsets
    mask = [0] * len(ids)
    place = 0
    for start, end in spans:
        while place < len(ids) and not _reaches(offsets[place], start):
            place += 1
        first = place
        while place < len(ids) and (end == OPEN_END or offsets[place][0] < end):
            place += 1
            if end == OPEN_END and ids[place - 1] in end_ids:
                break
        last = _with_end_token(text, encoded, first, place, end_ids)
        mask[first:last] = [1] * (last - first)
        place = max(place, last)
    return mask


def _reaches(offset: Span, start: int) -> bool:
    """The token ends behind `start`, or is an empty one at it."""
    return offset[1] > start or offset[0] == offset[1] == start


def _with_end_token(text: str, encoded: Encoded, first: int, last: int, end_ids: frozenset[int]) -> int:
    """`last`, moved to right behind the turn's end token where there is one."""
    ids, offsets = encoded.ids, encoded.offsets
    for place in range(last - 1, first - 1, -1):
        if ids[place] in end_ids:
            return place + 1
        if text[slice(*offsets[place])].strip():
            break
    return last + 1 if last < len(ids) and ids[last] in end_ids else last
