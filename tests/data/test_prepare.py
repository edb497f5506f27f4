"""A data set becomes tokens with masks, or an error that names every bad row."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import pytest

from tests.plans import plan
from tunesmith.data.faults import BadRows
from tunesmith.data.prepare import prepare
from tunesmith.data.splits import held_back
from tunesmith.data.store import Rows
from tunesmith.errors import DataError, EngineError
from tunesmith.handoff.events import read_events
from tunesmith.handoff.plan import EachEpoch, EverySteps
from tunesmith.handoff.prepared import Prepared

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}


def prepared(run, given=None):
    events = []
    return prepare(run, given or plan(), events.append), events


def test_rows_on_disk_are_the_rows_of_the_files(run, put, tokenizer):
    put("train.jsonl", {"prompt": "a b", "completion": " c"}, {"text": "hello"}, CHAT)
    found, events = prepared(run)
    rows = Rows(run, found.training)
    assert [tokenizer.decode(rows.ids(i).tolist(), skip_special=False) for i in range(3)] == [
        "a b c<|im_end|>",
        "hello<|im_end|>",
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n",
    ]
    trained = [
        tokenizer.decode(rows.ids(i)[rows.mask(i) == 1].tolist(), skip_special=False).replace("<|im_end|>", "$")
        for i in range(3)
    ]
    assert trained[0] == " c$"
    assert trained[1] == "hello$"[len(tokenizer.decode(rows.ids(1)[:1].tolist())) :]
    assert trained[2] == "yo$"
    assert found.training.tokens == sum(rows.lengths)
    assert found.training.trained_tokens == sum(int(rows.mask(i).sum()) for i in range(3))
    assert Prepared.read(run / "data.json") == found
    assert [event.kind for event in events] == ["preparing", "preparing", "prepared"]


def test_bad_json_on_line_17_names_file_line_and_column(run, put):
    put("train.jsonl", *[{"text": "x"}] * 16, '{"text": "x",}')
    with pytest.raises(BadRows, match=r"1 bad row: train\.jsonl line 17: not JSON: .* at column 14"):
        prepared(run)


def test_a_wrong_type_names_file_line_and_key(run, put):
    put("train.jsonl", CHAT, {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": 3}]})
    with pytest.raises(BadRows, match=r"train\.jsonl line 2: key 'messages\[1\]\.content': must be a string, not a nu"):
        prepared(run)


def test_every_bad_row_is_counted_and_a_hundred_are_told(run, put):
    put("train.jsonl", CHAT, *[{"text": i} for i in range(150)])
    with pytest.raises(BadRows) as caught:
        prepared(run)
    assert caught.value.message.startswith("150 bad rows: train.jsonl line 2: key 'text'")
    assert caught.value.message.endswith("; and 147 more")
    assert len(caught.value.detail.splitlines()) == 100


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": NaN}', "NaN is not a JSON number"),
        ('{"text": "\\ud83d"}', r"key 'text': holds half a character \(\\ud83d\) at position 0"),
        ('{"text": ""}', "key 'text': must not be empty"),
        ('{"text": "x", "n": ' + "1" * 5000 + "}", "not JSON that can be read: a number has more than 4,300 digits"),
        ("[1]", "a row must be a JSON object, not a list"),
        ('{"question": "x"}', "a row needs 'messages', or 'prompt' and 'completion', or 'text'; its keys: 'question'"),
        ('{"messages": []}', "key 'messages': must be a list with at least one message, not an empty list"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no message has the role 'assistant'"),
        ('{"messages": [{"role": "assistant", "contents": "x"}]}', r"key 'messages\[0\]\.contents': is not a key"),
    ],
)
def test_an_unlawful_row_is_told_by_its_key(run, put, line, problem):
    put("train.jsonl", line)
    with pytest.raises(BadRows, match=problem):
        prepared(run)


def test_bytes_that_are_not_utf8_are_told(run):
    (run / "inputs/data/train.jsonl").write_bytes(b'{"text": "ok"}\n{"text": "\xff"}\n')
    with pytest.raises(BadRows, match=r"train\.jsonl line 2: not UTF-8: byte 0xff at column 11"):
        prepared(run)


def test_a_byte_order_mark_and_blank_lines_are_tolerated(run):
    (run / "inputs/data/train.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "ok"}\r\n\r\n{"text": "ok"}')
    assert prepared(run)[0].training.rows == 2


def test_a_json_array_is_a_list_of_rows(run):
    (run / "inputs/data/train.json").write_text(json.dumps([{"text": "a"}, {"text": "b"}], indent=1))
    assert prepared(run)[0].training.rows == 2


def test_no_data_files_says_what_was_looked_for_and_what_is_there(run):
    (run / "inputs/data/notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no training data: looked for train\*\.jsonl.*; there is notes\.txt"):
        prepared(run)


def test_a_file_without_rows_is_refused(run, put):
    put("train.jsonl", "")
    with pytest.raises(DataError, match=r"there is not a single row in train\.jsonl"):
        prepared(run)


def test_validation_files_are_not_split_again(run, put):
    put("my-data/train.jsonl", *[CHAT] * 20)
    put("my-data/validation.jsonl", CHAT)
    found = prepared(run, plan(data={"split_fraction": 0.1}))[0]
    assert (found.training.rows, found.validation.rows) == (20, 1)


def test_a_validation_fileset_wins_over_files_and_says_so(run, put):
    put("train.jsonl", CHAT)
    put("dev.jsonl", CHAT)
    put("anything.jsonl", CHAT, CHAT, below="validation")
    found, events = prepared(run, plan(data={"validation": "files"}))
    assert found.validation.rows == 2
    assert events[0].message == "data files that are not used: dev.jsonl"


@pytest.mark.parametrize(("rows", "expected"), [(9, 0), (10, 1), (19, 1), (20, 2)])
def test_a_tenth_is_held_back_and_one_of_ten(run, put, rows, expected):
    put("train.jsonl", *[{"text": f"row {i}"} for i in range(rows)])
    found = prepared(run, plan(data={"split_fraction": 0.1}))[0]
    assert (found.training.rows, found.validation.rows) == (rows - expected, expected)
    assert bool(found.validate_at) == bool(expected)


def test_a_long_prompt_loses_its_left_and_a_long_text_its_right(run, put, tokenizer):
    put("train.jsonl", {"prompt": "abcdefgh", "completion": "XY"}, {"text": "abcdefgh"})
    found, _ = prepared(run, plan(data={"sequence_limit": 5}))
    rows = Rows(run, found.training)
    texts = [tokenizer.decode(rows.ids(i).tolist(), skip_special=False) for i in range(2)]
    assert texts == ["ghXY<|im_end|>", "abcde"]
    assert found.truncated_rows == 2


def test_rows_without_trained_tokens_are_dropped_and_counted(run, put):
    put("train.jsonl", {"text": "hello"}, CHAT)
    found, _ = prepared(run, plan(data={"sequence_limit": 4}))
    assert (found.training.rows, found.dropped_rows) == (1, 1)
    put("train.jsonl", CHAT)
    with pytest.raises(DataError, match=r"no training rows are left: all 1 dropped rows .* within 4 tokens"):
        prepared(run, plan(data={"sequence_limit": 4}))


def test_a_completion_that_does_not_fit_is_dropped_and_not_cut(run, put, tokenizer):
    put("train.jsonl", {"prompt": "ab", "completion": "WXYZ"}, {"prompt": "ab", "completion": "VWXYZ"})
    found, _ = prepared(run, plan(data={"sequence_limit": 5}))
    assert (found.training.rows, found.dropped_rows, found.truncated_rows) == (1, 1, 2)
    assert tokenizer.decode(Rows(run, found.training).ids(0).tolist(), skip_special=False) == "WXYZ<|im_end|>"


def test_an_end_token_that_is_there_already_is_not_put_twice(run, put, tokenizer):
    put("train.jsonl", {"prompt": "a", "completion": "b<|im_end|>"}, {"text": "c<|im_end|>"})
    rows = Rows(run, prepared(run)[0].training)
    assert [tokenizer.decode(rows.ids(i).tolist(), skip_special=False) for i in range(2)] == [
        "ab<|im_end|>",
        "c<|im_end|>",
    ]


def test_validation_files_without_anything_to_validate_on_are_refused(run, put):
    put("train.jsonl", {"text": "hello"})
    put("val.jsonl", CHAT)
    with pytest.raises(DataError, match=r"no validation rows are left: all 1 dropped rows .* within 4 tokens"):
        prepared(run, plan(data={"sequence_limit": 4}))


def test_a_split_without_anything_to_validate_on_is_told(run, put):
    (lost,) = held_back(10, 0.1, seed=7)
    put("train.jsonl", *[CHAT if row == lost else {"text": "hello"} for row in range(10)])
    found, events = prepared(run, plan(data={"sequence_limit": 4, "split_fraction": 0.1}))
    assert (found.training.rows, found.validation.rows, found.validate_at) == (9, 0, ())
    assert [event.message[:66] for event in events if event.kind == "warning"] == [
        "no validation rows are left: all 1 dropped rows have nothing to tr"
    ]


@pytest.mark.parametrize(("cadence", "told"), [(EachEpoch(), False), (EverySteps(steps=2), True)])
def test_a_validation_that_was_asked_for_and_has_no_rows_is_told(run, put, cadence, told):
    put("train.jsonl", CHAT)
    found, events = prepared(run, plan(schedule={"validate_at": cadence}))
    assert found.validate_at == ()
    said = [event.message for event in events if event.kind == "warning"]
    assert bool(said) == told
    assert all("there are no validation rows, so none runs" in message for message in said)


@pytest.mark.parametrize(("warmup", "said"), [(2, []), (8, ["the warm-up (8 steps) is longer than the run (2): "])])
def test_a_warm_up_that_the_run_does_not_outlive_is_told(run, put, warmup, said):
    put("train.jsonl", CHAT)
    _, events = prepared(run, plan(optimizer={"warmup_steps": warmup, "learning_rate": 0.01}))
    told = [event.message for event in events if event.kind == "warning"]
    assert [message[: len("the warm-up (8 steps) is longer than the run (2): ")] for message in told] == said
    assert all("ends at 0.0025 and never comes to 0.01" in message for message in told)


def test_a_token_without_an_embedding_is_told_by_its_row(run, put, tokenizer, tokenizer_dir):
    most = max(tokenizer.encode("the assistant"))
    model = run / "inputs" / "model"
    model.unlink()
    shutil.copytree(tokenizer_dir, model)
    (model / "config.json").write_text(json.dumps({"vocab_size": most}))
    put("train.jsonl", {"text": "hi"}, {"text": "the assistant"})
    with pytest.raises(
        BadRows, match=rf"^1 bad row: train.jsonl line 2: token {most} \('.*'\) has no embedding: .* {most};"
    ):
        prepared(run)


@pytest.mark.parametrize("content", ["{}", "no"])
def test_a_tokenizer_that_cannot_be_read_is_told(run, put, tokenizer_dir, content):
    model = run / "inputs" / "model"
    model.unlink()
    shutil.copytree(tokenizer_dir, model)
    (model / "tokenizer.json").write_text(content)
    put("train.jsonl", {"text": "hi"})
    with pytest.raises(EngineError, match=r"tokenizer.json cannot be read \(.*\); upload it again") as caught:
        prepared(run)
    assert caught.value.code == "ModelLoadError"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("hello", "the chat template leaves out what the assistant says; use one that renders it"),
        (
            "{% if false %}{% generation %}{% endgeneration %}{% endif %}x",
            "the chat template marks nothing as generated",
        ),
    ],
)
def test_a_template_that_renders_no_answer_is_told_by_the_message(run, put, template, why):
    put("train.jsonl", CHAT)
    with pytest.raises(BadRows) as caught:
        prepared(run, plan(data={"chat_template": template}))
    assert f"train.jsonl line 1: key 'messages[1]': {why}" in caught.value.message


def test_each_row_knows_its_file_its_line_and_the_digest_of_what_stands_there(run, put):
    first = put("up/train/a.jsonl", {"text": "one"}, "", '  {"text": "two"} ', {"prompt": "x", "completion": "y" * 9})
    (run / "inputs/data/up/train/b.json").write_text(
        json.dumps([{"text": "three"}, {"prompt": "é", "completion": "f"}])
    )
    put("dev.jsonl", CHAT, below="validation")
    found, _ = prepared(run, plan(data={"validation": "files", "sequence_limit": 30}))
    rows, asked = (Rows(run, split, found.files) for split in (found.training, found.validation))
    assert [rows.place(row) for row in range(len(rows))] == [
        "up/train/a.jsonl line 1",
        "up/train/a.jsonl line 3",
        "up/train/a.jsonl line 4",
        "up/train/b.json item 1",
        "up/train/b.json item 2",
    ]
    assert asked.place(0) == "validation: dev.jsonl line 1"
    stands = [line.strip() for line in first.read_bytes().splitlines() if line]
    stands += [b'{"text":"three"}', '{"completion":"f","prompt":"é"}'.encode()]
    digests = b"".join(hashlib.blake2b(line, digest_size=16).digest() for line in stands)
    assert (run / found.training.digests).read_bytes() == digests


def test_a_dropped_row_moves_no_place(run, put):
    put("train.jsonl", CHAT, {"text": "hello"})
    found, _ = prepared(run, plan(data={"sequence_limit": 4}))
    assert Rows(run, found.training, found.files).place(0) == "train.jsonl line 2"


def test_a_run_that_noted_no_places_calls_rows_by_number(run, put):
    put("train.jsonl", CHAT)
    found, _ = prepared(run)
    assert Rows(run, found.training.model_copy(update={"places": ""}), found.files).place(0) == "row 0"


def test_a_template_that_ends_no_answer_is_told(run, put):
    plain = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ 'assistant: ' * add_generation_prompt }}"
    )
    put("train.jsonl", CHAT, {"text": "x"}, {"messages": [*CHAT["messages"], {"role": "user", "content": "ok"}]})
    (said,) = [
        event.message for event in prepared(run, plan(data={"chat_template": plain}))[1] if event.kind == "warning"
    ]
    assert said.startswith(
        "rows whose last answer has no end token (<|im_end|>) behind it: 2; the model does not learn"
    )
    assert not [event for event in prepared(run)[1] if event.kind == "warning"]


def test_conversations_without_a_template_are_refused_with_a_way_out(run, put):
    put("train.jsonl", CHAT)
    with pytest.raises(BadRows, match="line 1: key 'messages': the model has no chat template"):
        prepared(run, plan(data={"chat_template": ""}))


def test_the_process_ends_with_a_failed_event_and_status_1(run, put):
    plan().write(run / "plan.json")
    put("train.jsonl", "nonsense")
    done = subprocess.run([sys.executable, "-m", "tunesmith.data", str(run)], check=False, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    last = read_events(run / "events.1.jsonl", 0)[0][-1]
    assert (last.kind, last.type) == ("failed", "DatasetFormatError")
    assert "train.jsonl line 1" in last.message


def test_preparing_loads_neither_torch_nor_transformers():
    code = "import sys, tunesmith.data.__main__; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
