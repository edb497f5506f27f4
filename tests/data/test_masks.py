"""The loss of a conversation is on what the assistant says and on its end token."""

from __future__ import annotations

import pytest

from tests.data.test_template import MARKED
from tests.models import CHATML
from tunesmith.data.encode import Encoder
from tunesmith.data.faults import Faults, Place
from tunesmith.data.rows import Conversation
from tunesmith.data.template import ChatTemplate

TALK = (
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yo 😀"},
    {"role": "user", "content": "bye <b>"},
    {"role": "assistant", "content": ""},
)
UNSTABLE = "{{ messages | length }}" + CHATML
STRIPS_THOUGHT = CHATML.replace(
    "message['content'] +", "(message['content'] if loop.last else message['content'].split('|')[-1]) +"
)


def masked(tokenizer, source, messages, faults=None, tools=None):
    """The row's text with what is trained on in brackets, token by token."""
    encoder = Encoder(tokenizer, ChatTemplate(source, tokenizer.special_tokens), 1000)
    (row,) = encoder.encode([(Place("here", 1), Conversation(tuple(messages), tools))], faults or Faults())
    if row is None:
        return None
    pieces, inside = [], 0
    for start, change in enumerate([*row.mask, 0]):
        if change != inside:
            pieces.append(start)
        inside = change
    ids = row.ids
    return [tokenizer.decode(ids[a:b], skip_special=False) for a, b in zip(pieces[::2], pieces[1::2], strict=True)]


def test_turns_are_found_by_rendering_prefixes(tokenizer):
    assert masked(tokenizer, CHATML, TALK) == ["yo 😀<|im_end|>", "<|im_end|>"]


def test_marks_of_the_template_are_believed(tokenizer):
    assert masked(tokenizer, MARKED, TALK) == ["yo 😀<|im_end|>", "<|im_end|>"]


def test_an_end_token_behind_the_marks_belongs_to_the_turn(tokenizer):
    outside = MARKED.replace("{{ eos_token }}{% endgeneration %}", "{% endgeneration %}{{ eos_token }}")
    assert masked(tokenizer, outside, TALK[:2]) == ["yo 😀<|im_end|>"]


def test_a_turn_that_is_shortened_later_reaches_to_its_end_token(tokenizer):
    talk = [*TALK[:1], {"role": "assistant", "content": "thought|said"}, *TALK[2:]]
    assert masked(tokenizer, STRIPS_THOUGHT, talk) == ["said<|im_end|>", "<|im_end|>"]


def test_a_template_that_rewrites_earlier_text_is_a_data_error(tokenizer):
    faults = Faults()
    assert masked(tokenizer, UNSTABLE, TALK, faults) is None
    assert "here line 1: key 'messages[1]': the chat template changes earlier text" in str(faults.kept[0])


def test_tools_that_the_template_drops_are_a_data_error(tokenizer):
    faults = Faults()
    assert masked(tokenizer, CHATML, TALK, faults, tools=({"name": "f"},)) is None
    assert "key 'tools': the chat template leaves tools out" in str(faults.kept[0])


@pytest.mark.parametrize("content", ["\n\nnew lines\n", " spaces ", "tabs\t"])
def test_what_the_assistant_says_is_covered_whole(tokenizer, content):
    talk = [TALK[0], {"role": "assistant", "content": content}]
    assert masked(tokenizer, CHATML, talk)[0].endswith(content.lstrip("\n") + "<|im_end|>")


CALLS = CHATML.replace("+ '<|im_end|>'", "+ (message.tool_calls | tojson if message.tool_calls else '') + '<|im_end|>'")
THINKS = CHATML.replace("message['content'] +", "(message.thinking or message['content']) +")
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
THOUGHT = {"role": "assistant", "thinking": "hm"}


@pytest.mark.parametrize(
    ("message", "key", "renders"), [(CALL, "tool_calls", CALLS), (THOUGHT, "thinking", THINKS)], ids=["calls", "thinks"]
)
def test_calls_and_thoughts_that_the_template_drops_are_a_data_error(tokenizer, message, key, renders):
    faults = Faults()
    talk = [*TALK, {"role": "user", "content": "?"}, message]
    assert masked(tokenizer, CHATML, talk, faults) is None
    assert f"key 'messages[5].{key}': the chat template leaves it out" in str(faults.kept[0])
    assert len(masked(tokenizer, renders, talk)) == 3


def test_a_call_is_trained_on_and_its_answer_is_not(tokenizer):
    answer = {"role": "tool", "content": "42", "tool_call_id": "1"}
    spoken = masked(tokenizer, CALLS, [TALK[0], CALL, answer, {"role": "assistant", "content": "it is 42"}])
    assert spoken == ['[{"function": {"name": "f", "arguments": {}}}]<|im_end|>', "it is 42<|im_end|>"]
