"""The loss of a conversation is on what the assistant says and on its end token.

Expectations are written by hand: a conversation's text, with what is trained on between [ and ].
"""

from __future__ import annotations

import pytest

from tests.data.brackets import bracketed
from tests.data.chat_templates import MARKED as MARKED_CHATML
from tests.data.test_template import MARKED
from tests.models import CHATML
from tunesmith.data.encode import Encoder
from tunesmith.data.faults import BadRows, Faults, Place
from tunesmith.data.masks import one_turn_each
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


PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""Ends no answer with a token."""
ASKS, ANSWERS = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"})


@pytest.mark.parametrize(
    ("source", "messages", "expected"),
    [
        pytest.param(
            CHATML,
            [ASKS, ANSWERS, {"role": "user", "content": "and?"}, {"role": "assistant", "content": "more"}],
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[yo<|im_end|>]\n"
            "<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n[more<|im_end|>]\n",
            id="many turns",
        ),
        pytest.param(
            CHATML,
            [{"role": "system", "content": "be kind"}, ASKS, ANSWERS],
            "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
            "<|im_start|>assistant\n[yo<|im_end|>]\n",
            id="a system message at the start",
        ),
        pytest.param(
            CHATML,
            [ASKS, {"role": "assistant", "content": ""}, ASKS, ANSWERS],
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[<|im_end|>]\n"
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[yo<|im_end|>]\n",
            id="an empty answer",
        ),
        pytest.param(
            CALLS,
            [
                ASKS,
                {**CALL, "content": ""},
                {"role": "tool", "content": "42"},
                {"role": "assistant", "content": "it is 42"},
            ],
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
            '[[{"function": {"name": "f", "arguments": {}}}]<|im_end|>]\n'
            "<|im_start|>tool\n42<|im_end|>\n<|im_start|>assistant\n[it is 42<|im_end|>]\n",
            id="a call, its answer, an answer",
        ),
        pytest.param(
            THINKS.replace(
                "(message.thinking or message['content'])",
                "('(' + message.thinking + ')' if message.thinking else '') + message['content']",
            ),
            [ASKS, THOUGHT, ANSWERS],
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[(hm)yo<|im_end|>]\n",
            id="a thought and an answer",
        ),
        pytest.param(
            CHATML,
            [ANSWERS, ASKS, ANSWERS],
            "<|im_start|>assistant\n[yo<|im_end|>]\n<|im_start|>user\nhi<|im_end|>\n"
            "<|im_start|>assistant\n[yo<|im_end|>]\n",
            id="the assistant first",
        ),
        pytest.param(
            CHATML,
            [ASKS, ANSWERS, {"role": "assistant", "content": "hey"}],
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[yo<|im_end|>]\n"
            "<|im_start|>assistant\n[hey<|im_end|>]\n",
            id="two answers in a row",
        ),
        pytest.param(
            CHATML,
            [
                {"role": "user", "content": "say <|im_end|>\n<|im_start|>assistant\nno"},
                {"role": "assistant", "content": "a<|im_end|>b <|im_start|>user"},
                ASKS,
                ANSWERS,
            ],
            "<|im_start|>user\nsay <|im_end|>\n<|im_start|>assistant\nno<|im_end|>\n"
            "<|im_start|>assistant\n[a<|im_end|>b <|im_start|>user<|im_end|>]\n"
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[yo<|im_end|>]\n",
            id="the template's markers in what is said",
        ),
        pytest.param(
            CHATML,
            [{"role": "user", "content": "日本 é"}, {"role": "assistant", "content": "😀é\u0301 日"}],
            "<|im_start|>user\n日本 é<|im_end|>\n<|im_start|>assistant\n[😀é\u0301 日<|im_end|>]\n",
            id="characters of many tokens",
        ),
        pytest.param(
            MARKED_CHATML,
            [ASKS, ANSWERS, ASKS, ANSWERS],
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[yo<|im_end|>]\n"
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[yo<|im_end|>]\n",
            id="a template with marks",
        ),
        pytest.param(
            PLAIN,
            [ASKS, ANSWERS, ASKS, ANSWERS],
            "user: hi\nassistant: [yo\n]user: hi\nassistant: [yo\n]",
            id="a template without an end token",
        ),
    ],
)
def test_an_awkward_conversation_is_trained_on_where_the_assistant_speaks(tokenizer, source, messages, expected):
    assert bracketed(tokenizer, source, messages) == expected


@pytest.mark.parametrize(("cut", "expected"), [(4, ""), (3, "[y]"), (2, "[yo]"), (1, "[yo<|im_end|>]")])
def test_a_conversation_that_is_cut_in_an_answer_is_trained_on_up_to_the_cut(tokenizer, cut, expected):
    opening = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    whole = len(tokenizer.encode(opening + "yo<|im_end|>\n"))
    assert bracketed(tokenizer, CHATML, [ASKS, ANSWERS], limit=whole - cut) == opening + expected


def test_an_answer_that_is_shortened_later_and_has_no_end_token_ends_where_it_ends(tokenizer):
    talk = [ASKS, {"role": "assistant", "content": "thought|said"}, {"role": "user", "content": "?"}, ANSWERS]
    source = PLAIN.replace("{{ m.content }}", "{{ m.content if loop.last else m.content.split('|')[-1] }}")
    assert bracketed(tokenizer, source, talk) == "user: hi\nassistant: [said\n]user: ?\nassistant: [yo\n]"


def test_a_generation_prompt_that_no_earlier_answer_has_is_not_trained_on(tokenizer):
    thinks_first = CHATML.replace(
        "'<|im_start|>assistant\n' }}{% endif", "'<|im_start|>assistant\n<think>\n' }}{% endif"
    )
    expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[yo<|im_end|>]\n"
    assert bracketed(tokenizer, thinks_first, [ASKS, ANSWERS]) == expected


def test_an_answer_whose_end_cannot_be_seen_is_a_data_error(tokenizer):
    hides = CHATML.replace(
        "message['content'] +", "('...' if message.role == 'assistant' and not loop.last else message['content']) +"
    )
    with pytest.raises(
        BadRows, match=r"key 'messages\[1\]': the chat template changes an answer when .* it cannot be seen"
    ):
        bracketed(tokenizer, hides, [ASKS, ANSWERS, ASKS, ANSWERS])


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([THOUGHT, ANSWERS], {0: {**ANSWERS, "thinking": "hm"}}),
        ([THOUGHT, CALL], {0: {**CALL, "thinking": "hm"}}),
        ([ASKS, THOUGHT, THOUGHT, ANSWERS], {0: ASKS, 1: THOUGHT, 2: {**ANSWERS, "thinking": "hm"}}),
        ([{**THOUGHT, "tool_calls": CALL["tool_calls"]}, ANSWERS], None),
        ([ANSWERS, THOUGHT, ASKS], None),
    ],
)
def test_a_thought_belongs_to_the_answer_behind_it(messages, expected):
    assert one_turn_each(messages) == (expected or dict(enumerate(messages)))
