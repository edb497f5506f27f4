"""Linting reads as a job does, and tells of every bad row."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.models import CHATML
from tunesmith.data.encode import Encoder
from tunesmith.data.lint import lint
from tunesmith.data.rows import RowRules
from tunesmith.data.template import ChatTemplate
from tunesmith.errors import DataError

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}
SILENT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": " \n"}]}
RULES = RowRules()


@pytest.fixture
def encoder(tokenizer) -> Encoder:
    return Encoder(tokenizer, ChatTemplate(CHATML, tokenizer.special_tokens), 20)


def test_every_bad_row_is_told_with_file_line_key_and_reason(run, put):
    put("up/train.jsonl", CHAT, "{", *[{"text": 1}] * 150)
    put("up/dev.jsonl", {"prompt": "x", "completion": ""})
    found = lint([run / "inputs/data"], RULES).as_json()
    assert len(found["bad_rows"]) == 152
    assert found["bad_rows"][0] == {
        "file": "up/train.jsonl",
        "line": 2,
        "key": "",
        "reason": "not JSON: Expecting property name enclosed in double quotes at column 2",
    }
    assert found["bad_rows"][-1] == {
        "file": "up/dev.jsonl",
        "line": 1,
        "key": "completion",
        "reason": "must not be empty",
    }


def test_rows_are_counted_by_what_they_are(run, put):
    put("train.jsonl", CHAT, {"text": "a long text"}, CHAT, SILENT, {"prompt": "p", "completion": " "})
    put("val.jsonl", CHAT)
    put("info.json", {"text": "x"})
    put("other.jsonl", {"text": "x"})
    report = lint([run / "inputs/data"], RULES)
    found = report.as_json()
    assert found["rows"] == {"training": 5, "validation": 1, "messages": 4, "prompt/completion": 1, "text": 1}
    assert found["duplicates"] == {"count": 2, "first": "train.jsonl line 3"}
    assert found["empty_answers"] == {"count": 2, "first": "train.jsonl line 4"}
    assert found["longest"] == {"characters": 11, "at": "train.jsonl line 2"}
    assert found["files"]["unused"] == ["info.json", "other.jsonl"]
    assert found["notes"] == ["data files that are not used: info.json, other.jsonl"]
    assert "tokens" not in found


def test_with_a_tokenizer_it_says_what_would_be_cut_and_dropped(run, put, encoder, tokenizer):
    long = {"messages": [{"role": "user", "content": "0123456789" * 3}, {"role": "assistant", "content": "yo"}]}
    put("train.jsonl", {"text": "ok"}, {"text": "0123456789" * 3}, long)
    found = lint([run / "inputs/data"], RULES, encoder).as_json()
    whole = len(tokenizer.encode(ChatTemplate(CHATML, {}).render(long["messages"], False)))
    assert found["longest"] == {"tokens": whole, "at": "train.jsonl line 3"}
    assert found["tokens"]["truncated"] == {"count": 2, "first": "train.jsonl line 2"}
    assert found["tokens"]["dropped"] == {"count": 1, "first": "train.jsonl line 3"}
    assert found["tokens"]["total"] == len(tokenizer.encode("ok", special=True)) + 1 + 20


def test_with_a_tokenizer_it_finds_what_the_template_refuses(run, put, encoder):
    put("train.jsonl", {**CHAT, "tools": [{"name": "f"}]}, CHAT)
    assert not lint([run / "inputs/data"], RULES).faults
    (fault,) = lint([run / "inputs/data"], RULES, encoder).faults
    assert str(fault).startswith("train.jsonl line 1: key 'tools': the chat template leaves tools out")


def test_files_are_named_as_they_were_given(run, put):
    first, second = put("a.jsonl", "x"), put("b.json", "x")
    assert [fault.place.file for fault in lint([first, second], RULES).faults] == [str(first), str(second)]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("nothing", "there is no file or directory"), ("rows.csv", r"rows are read from \.jsonl and \.json files")],
)
def test_what_a_job_would_not_read_is_refused(run, name, problem):
    (run / "rows.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=problem):
        lint([run / name], RULES)


def test_a_file_without_rows_is_refused(run, put):
    put("train.jsonl", "")
    with pytest.raises(DataError, match=r"there is not a single row in train\.jsonl"):
        lint([run / "inputs/data"], RULES)
    put("train.jsonl", "bad")
    assert len(lint([run / "inputs/data"], RULES).faults) == 1


def test_lawfulness_needs_the_standard_library_alone(run, put):
    """Installed without extras, the command line lints."""
    put("train.jsonl", CHAT)
    code = (
        "import sys; from pathlib import Path; from tunesmith.data.lint import lint, RowRules;"
        f"lint([Path({json.dumps(str(run / 'inputs/data'))})], RowRules());"
        "sys.exit(' '.join({'numpy', 'jinja2', 'tokenizers', 'pydantic'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
