"""Which tokens of a rendered conversation the assistant said: the ones a loss is taken on.

A template that marks the assistant's text (`{% generation %}`) is believed. For the others a turn is what rendering
adds: from where the generation prompt ends to where the rendered turn ends. Either way the turn's end token belongs to
it, because the model must learn to stop, and the template's own white space behind that token does not.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from tunesmith.data.faults import RowFault
from tunesmith.data.rows import Conversation
from tunesmith.data.template import ChatTemplate, Message, Span, with_arguments
from tunesmith.data.tokens import Encoded
from tunesmith.errors import DataError

MAY_BE_LEFT_OUT = ("tool_calls", "thinking")
"""Keys of messages that many templates have never heard of."""

_FOREIGN = f"\ufdd4{secrets.token_hex(8)}\ufdd5"
"""What no row contains: put into a message, it shows where a template puts what the message says."""
_WAY_OUT = "use a template with {% generation %} marks, or one row for each answer"


def render_for_training(template: ChatTemplate, row: Conversation) -> tuple[str, list[Span]]:
    """The whole conversation as text and the character spans of the assistant's turns.

    RowFault if the template drops the row's tools, tool calls or thoughts or all that the assistant says, or changes
    earlier text when a conversation goes on; DataError if it refuses the messages.
    """
    told = one_turn_each(row.messages)
    messages = list(told.values())
    text, marked = template.render_marked(messages, tools=row.tools)
    if row.tools and text == template.render(messages, add_generation_prompt=False):
        raise RowFault("tools", "the chat template leaves tools out; use a template that renders them")
    for key in MAY_BE_LEFT_OUT:
        _refuse_left_out(template, told, row.tools, text, key)
    spans = marked if template.marks_generation else _Turns(template, told, row.tools, text).spans()
    if not any(end > start for start, end in spans):
        first = next(number for number, message in told.items() if message["role"] == "assistant")
        what = "marks nothing as generated" if template.marks_generation else "leaves out what the assistant says"
        raise RowFault(f"messages[{first}]", f"the chat template {what}; use one that renders it")
    return text, spans


def one_turn_each(messages: Sequence[Message]) -> dict[int, Message]:
    """The messages by their number; a thought and the assistant's message behind it are one, as templates expect.

    It has the number of the thought.
    """
    told: dict[int, Message] = {}
    before: Message = {}
    for number, message in enumerate(messages):
        if message["role"] == "assistant" and set(before) == {"role", "thinking"} and not message.get("thinking"):
            told[number - 1] = {**before, **message, "thinking": before["thinking"]}
        else:
            told[number] = message
        before = {key: value for key, value in message.items() if value not in (None, [])}
    return told


def _refuse_left_out(
    template: ChatTemplate, told: Mapping[int, Message], tools: Sequence[Message] | None, text: str, key: str
) -> None:
    """RowFault if `text` is the same without what the messages have under `key`, wherever they have it.

    A template may drop thoughts of earlier turns, as it does when it is talked to; dropping all of them is a fault.
    """
    given = [number for number, message in told.items() if message.get(key)]
    if not given:
        return
    without = [{name: value for name, value in message.items() if name != key} for message in told.values()]
    try:
        same = template.render(without, False, tools) == text
    except DataError:
        return  # the template insists on it
    if same:
        raise RowFault(f"messages[{given[0]}].{key}", "the chat template leaves it out; use one that renders it")


class _Turns:
    """Finds the assistant's turns in a rendered conversation by rendering it in other ways."""

    def __init__(
        self, template: ChatTemplate, told: Mapping[int, Message], tools: Sequence[Message] | None, text: str
    ) -> None:
        self._template, self._tools, self._text = template, tools, text
        self._numbers, self._messages = list(told), list(told.values())

    def spans(self) -> list[Span]:
        """From where each answer begins to where its turn ends; RowFault where the template does not let it be seen."""
        said = [place for place, message in enumerate(self._messages) if message["role"] == "assistant"]
        return [self._span(place) for place in said]

    def _span(self, place: int) -> Span:
        start = self._start(place)
        if place == len(self._messages) - 1:
            return start, len(self._text)
        after = self._render(self._messages[: place + 1])
        return start, max(start, len(after) if self._text.startswith(after) else self._changed_end(place, after))

    def _start(self, place: int) -> int:
        """Behind the generation prompt, or behind what the template puts before every answer here."""
        earlier = self._messages[:place]
        try:
            prompt = self._render(earlier, prompted=True)
            if self._text.startswith(prompt):
                return len(prompt)
            plain = self._render(earlier)
        except DataError:
            if earlier:
                raise
            plain = ""  # many templates refuse to render nothing
        if not self._text.startswith(plain):
            raise self._unseen(place, "changes earlier text when a conversation goes on")
        other = {"role": "assistant", "content": _FOREIGN}
        return _shared(self._text, self._otherwise(place, [*earlier, other, *self._messages[place + 1 :]]))

    def _changed_end(self, place: int, after: str) -> int:
        """Where a turn ends that is rendered otherwise at the end of a conversation, where the text is `after`."""
        earlier, later = self._messages[:place], self._messages[place + 1 :]
        message, by_call = _with_more(self._messages[place])
        end = len(self._text) - _shared(self._text[::-1], self._otherwise(place, [*earlier, message, *later])[::-1])
        end_after = len(after) - _shared(after[::-1], self._otherwise(place, [*earlier, message])[::-1])
        closing = after[end_after:]
        if self._text.startswith(closing, end):
            return end + len(closing)
        if by_call or not end:
            raise self._unseen(place, "changes an answer when a conversation goes on")
        return end  # it is closed otherwise than an answer that the model ends itself

    def _render(self, messages: Sequence[Message], prompted: bool = False) -> str:
        return self._template.render(messages, prompted, self._tools)

    def _otherwise(self, place: int, messages: Sequence[Message]) -> str:
        """The conversation with something else in the message at `place`."""
        try:
            return self._render(messages)
        except DataError as refusal:
            raise self._unseen(place, f"changes earlier text when a conversation goes on ({refusal.message})") from None

    def _unseen(self, place: int, what: str) -> RowFault:
        why = f"the chat template {what}, so it cannot be seen what the assistant said here; {_WAY_OUT}"
        return RowFault(f"messages[{self._numbers[place]}]", why)


def _with_more(message: Message) -> tuple[Message, bool]:
    """The message with something more at the end of what it says, and whether that is in its last call."""
    calls = [with_arguments(call) for call in message.get("tool_calls") or ()]
    if not calls:
        return {**message, "content": f"{message.get('content') or ''}{_FOREIGN}"}, False
    inner = calls[-1].get("function")
    function = inner if isinstance(inner, dict) else calls[-1]
    arguments = function.get("arguments")
    more = {**function, "arguments": {**(arguments if isinstance(arguments, dict) else {}), _FOREIGN: 1}}
    return {
        **message,
        "tool_calls": [*calls[:-1], {**calls[-1], "function": more} if function is inner else more],
    }, True


def _shared(one: str, other: str) -> int:
    """Characters that both begin with."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if one[:middle] == other[:middle] else (least, middle - 1)
    return least


def assistant_mask(text: str, encoded: Encoded, spans: Sequence[Span], end_ids: frozenset[int]) -> list[int]:
    """1 for each token that overlaps a span or is its end token, else 0."""
    ids, offsets = encoded.ids, encoded.offsets
    mask = [0] * len(ids)
    place = 0
    for start, end in spans:
        while place < len(ids) and not _reaches(offsets[place], start):
            place += 1
        first = place
        while place < len(ids) and offsets[place][0] < end:
            place += 1
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
