"""What a row means, by its keys and by what a job says of its data set."""

from __future__ import annotations

import json

import pytest

from tests.plans import plan
from tunesmith.data.faults import BadRows, RowFault
from tunesmith.data.prepare import prepare
from tunesmith.data.previews import rules_of
from tunesmith.data.rows import Conversation, PromptCompletion, RowParser, RowRules, Text
from tunesmith.errors import DataError

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}
PAIR = {"prompt": "a", "completion": "b"}
AS_IT_IS = RowRules()
CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def parsed(value, rules=AS_IT_IS):
    return RowParser(rules)(value)


def talk(**message):
    return {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", **message}]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"body": "x", **PAIR, **CHAT}, Text("x")),
        ({"text": "not asked for", **PAIR, **CHAT}, PromptCompletion("a", "b")),
    ],
)
def test_unsloth_looks_for_its_text_field_then_for_prompt_and_completion(row, expected):
    assert parsed(row, rules_of("unsloth", text_field="body")) == expected


def test_unsloth_renders_conversations_when_it_is_told_to():
    with pytest.raises(RowFault, match=r"key 'messages': .* dataset.apply_chat_template = true"):
        parsed(CHAT, rules_of("unsloth"))
    assert isinstance(parsed(CHAT, rules_of("unsloth", apply_chat_template=True)), Conversation)


def test_unsloth_guesses_no_columns():
    with pytest.raises(RowFault, match="a row needs 'messages', or 'prompt' and 'completion', or 'text'"):
        parsed({"question": "x", "answer": "y"}, rules_of("unsloth"))


def test_a_field_of_the_other_dialect_is_refused_by_name():
    with pytest.raises(DataError, match="text_field: automodel has none"):
        rules_of("automodel", text_field="body")
    with pytest.raises(DataError, match="prompt_template: unsloth has none"):
        rules_of("unsloth", prompt_template="{a}{b}")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{q}{a}", ("2x2", "4")),
        ("{q} {a}", ("2x2", " 4")),
        ("Q: {q}\nA: {a}.\n", ("Q: 2x2\nA:", " 4.\n")),
        ("{{{q}}}\n{a}", ("{2x2}\n", "4")),
    ],
)
def test_a_prompt_template_is_filled_and_cut_before_its_second_placeholder(template, expected):
    row = {"a": "4", "q": "2x2", "text": "not asked for"}
    assert parsed(row, RowRules(prompt_template=template)) == PromptCompletion(*expected)


def test_a_row_that_a_prompt_template_cannot_use_is_told_by_its_key():
    rules = RowRules(prompt_template="{q} {a}")
    with pytest.raises(RowFault, match=r"key 'a': is missing; dataset.prompt_template '\{q\} \{a\}' names it"):
        parsed({"q": "x", "answer": "y"}, rules)
    with pytest.raises(RowFault, match="key 'q': must be a string, not a number"):
        parsed({"q": 1, "a": "y"}, rules)


@pytest.mark.parametrize("template", ["{a}", "{a}{b}{c}", "{a}{a}", "{}{}", "{a:3}{b}", "{a", "plain"])
def test_a_prompt_template_has_two_placeholders(template):
    with pytest.raises(DataError, match="must have two placeholders, such as"):
        RowParser(RowRules(prompt_template=template))


def test_two_texts_are_a_prompt_and_a_completion_in_the_order_of_the_first_row():
    parse = RowParser()
    assert parse({"question": "x", "id": 3, "answer": "y"}) == PromptCompletion("x", "y")
    assert parse({"answer": "b", "question": "a"}) == PromptCompletion("a", "b")
    with pytest.raises(RowFault, match="its keys: 'ask', 'say'"):
        parse({"ask": "x", "say": "y"})


def test_more_than_two_texts_are_not_guessed():
    with pytest.raises(
        RowFault, match=r"its keys: 'instruction', 'input', 'output'; name two of them in dataset.promp"
    ):
        parsed({"instruction": "x", "input": "", "output": "y"})


@pytest.mark.parametrize(
    "message",
    [
        {"thinking": "hm"},
        {"content": None, "thinking": "hm", "tool_calls": [CALL]},
        {"content": "", "tool_calls": [CALL]},
        {"tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]},
        {"content": "x", "tool_calls": []},
    ],
)
def test_an_answer_is_said_thought_or_called(message):
    assert isinstance(parsed(talk(**message)), Conversation)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"content": "x", "thinking": "hm"}, r"messages\[1\]\.thinking': cannot stand beside 'content'"),
        ({"content": "x", "reasoning": "hm"}, r"messages\[1\]\.reasoning': is not a key of a message"),
        ({"content": [{"type": "text"}]}, r"messages\[1\]\.content': must be a string, not a list"),
        ({"thinking": 3}, r"messages\[1\]\.thinking': must be a string, not a number"),
        ({"tool_calls": []}, r"messages\[1\]\.content': must be a string, not null"),
        ({"tool_calls": {}}, r"messages\[1\]\.tool_calls': must be a list of objects, not an object"),
        (
            {"tool_calls": [{"function": {"arguments": "{city"}}]},
            r"messages\[1\]\.tool_calls\[0\]\.function\.arguments': must be an object or its JSON",
        ),
    ],
)
def test_an_unlawful_answer_is_told_by_its_key(message, problem):
    with pytest.raises(RowFault, match=problem):
        parsed(talk(**message))


def test_thoughts_and_calls_are_the_assistants():
    with pytest.raises(RowFault, match=r"messages\[0\]\.thinking': belongs to the role 'assistant', not 'user'"):
        parsed({"messages": [{"role": "user", "thinking": "hm"}, {"role": "assistant", "content": "x"}]})


def test_one_job_tells_of_rows_that_are_unlawful_and_of_rows_that_the_template_refuses(run, put):
    refuses = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{{ m.content }}"
        "{% endfor %}"
    )
    tool = {"messages": [*CHAT["messages"], {"role": "tool", "content": "x"}]}
    put("train.jsonl", tool, "nonsense", CHAT)
    put("val.jsonl", {"text": 3})
    with pytest.raises(BadRows) as caught:
        prepare(run, plan(data={"chat_template": refuses}), [].append)
    assert caught.value.detail.splitlines() == [
        "train.jsonl line 1: key 'messages': the chat template refuses the messages: no tools",
        "train.jsonl line 2: not JSON: Expecting value at column 1",
        "val.jsonl line 1: key 'text': must be a string, not a number",
    ]


def test_an_array_that_is_not_json_is_one_bad_row_in_its_line(run):
    (run / "inputs/data/train.json").write_text('[{"text": "a"},\n {"text": b}]')
    with pytest.raises(BadRows, match=r"1 bad row: train\.json line 2: not JSON: Expecting value at column 11"):
        prepare(run, plan(), [].append)


def test_guessed_columns_are_a_warning_of_the_job(run, put):
    put("train.jsonl", {"question": "x", "answer": "y"})
    events = []
    prepare(run, plan(), events.append)
    (said,) = [event.message for event in events if event.kind == "warning"]
    assert said.startswith("rows have no key that is known: 'question' is taken as the prompt and 'answer' as the comp")


def test_a_job_reads_rows_by_its_rules(run, put):
    put("train.jsonl", {"q": "x", "a": "y"})
    put("val.jsonl", {"q": "x", "b": "y"})
    with pytest.raises(BadRows, match=r"1 bad row: val\.jsonl line 1: key 'a': is missing"):
        prepare(run, plan(data={"prompt_template": "{q} {a}"}), [].append)


def test_arguments_of_calls_reach_the_template_as_objects_and_nulls_not_at_all(run):
    from tunesmith.data.template import ChatTemplate

    source = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{{ c.function.arguments | tojson }}"
    template = ChatTemplate(source + "{% endfor %}{% endfor %}", {})
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert template.render([message]) == '{"city": "Oslo"}'
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}
