"""The loss of a conversation is on what the assistant says and on its end token."""

from __future__ import annotations

import pytest

from tests.data.test_template import MARKED
from tests.models import CHATML
from tunesmith.data.encode import Encoder
from tunesmith.data.rows import Conversation, Faults
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
    rows = encoder.encode([("here", Conversation(tuple(messages), tools))], faults or Faults())
    if not rows:
        return None
    pieces, inside = [], 0
    for start, change in enumerate([*rows[0].mask, 0]):
        if change != inside:
            pieces.append(start)
        inside = change
    ids = rows[0].ids
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
    assert "here: key 'messages[1]': the chat template changes earlier text" in faults.kept[0]


def test_tools_that_the_template_drops_are_a_data_error(tokenizer):
    faults = Faults()
    assert masked(tokenizer, CHATML, TALK, faults, tools=({"name": "f"},)) is None
    assert "key 'tools': the chat template leaves tools out" in faults.kept[0]


@pytest.mark.parametrize("content", ["\n\nnew lines\n", " spaces ", "tabs\t"])
def test_what_the_assistant_says_is_covered_whole(tokenizer, content):
    talk = [TALK[0], {"role": "assistant", "content": content}]
    assert masked(tokenizer, CHATML, talk)[0].endswith(content.lstrip("\n") + "<|im_end|>")
