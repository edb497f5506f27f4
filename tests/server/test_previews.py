"""Rows as a job would train on them, over the wire."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.live import LiveServer, Wire, settings
from tests.models import CHATML
from tunesmith.control import previews as control
from tunesmith.data import previews as data

PREVIEWS = "/apis/customization/v2/workspaces/default/previews"
CHAT = {"messages": [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2 w3"}]}
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
PLAIN = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"


def lines(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


@pytest.fixture
def ready(wire: Wire) -> Wire:
    """A model whose words are w0, w1 ..., and a data set."""
    wire.model()
    wire.fileset("rows", {"train.jsonl": lines(CHAT, {"prompt": "w1 w2", "completion": "w3"})})
    return wire


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where previews are made, empty whenever none is."""
    return settings(tmp_path).data_dir / "previews"


def ask(wire: Wire, **body: Any) -> Any:
    return wire.http.post(PREVIEWS, json={"model": "base", "dataset": "rows", **body})


def test_rows_are_shown_in_pieces_with_what_is_trained_on(ready: Wire, scratch: Path) -> None:
    answer = ask(ready, chat_template=PLAIN, max_seq_length=4)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["sequence_limit"] == 4
    first, second = found["rows"]
    assert [(piece["text"].strip(), piece["trained"]) for piece in first["segments"]] == [
        ("w1", False),
        ("w2 w3 </s>", True),
    ]
    assert (second["file"], second["line"], second["format"]) == ("train.jsonl", 2, "prompt/completion")
    assert (second["tokens"], second["trained_tokens"], second["truncated"]) == (4, 2, False)
    assert not list(scratch.iterdir())


def test_the_limit_is_the_models_context_where_that_is_smaller(ready: Wire) -> None:
    assert ask(ready, chat_template=PLAIN).json()["sequence_limit"] == 128


def test_the_filesets_template_is_used_unless_another_is_tried(ready: Wire) -> None:
    refused = ask(ready)
    assert refused.status_code == 422
    assert "train.jsonl line 1: key 'messages': the model has no chat template" in refused.text
    metadata = {"model": {"tool_calling": {"chat_template": PLAIN}}}
    assert ready.http.patch("/apis/files/v2/workspaces/default/filesets/base", json={"metadata": metadata}).is_success
    assert ask(ready).status_code == 200
    tried = ask(ready, chat_template="{{ raise_exception('not you') }}")
    assert (tried.status_code, "the chat template refuses the messages: not you" in tried.text) == (422, True)


def test_a_bad_row_is_told_by_file_line_and_key(wire: Wire, scratch: Path) -> None:
    wire.model()
    wire.fileset("rows", {"up/train.jsonl": lines(CHAT, {"text": 3}, b"{")})
    answer = ask(wire, chat_template=PLAIN)
    assert answer.status_code == 422
    assert answer.json()["detail"] == (
        "2 bad rows: up/train.jsonl line 2: key 'text': must be a string, not a number; up/train.jsonl line 3: "
        "not JSON: Expecting property name enclosed in double quotes at column 2"
    )
    assert ask(wire, chat_template=PLAIN, rows=1).status_code == 200
    assert not list(scratch.iterdir())


def test_a_template_that_loops_is_stopped_with_the_reason(
    ready: Wire, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "SECONDS", 4.0)
    answer = ask(ready, chat_template=LOOPS)
    assert answer.status_code == 422
    assert "the chat template takes too long" in answer.json()["detail"]
    assert not list(scratch.iterdir())


def test_two_are_made_at_once_and_the_others_wait(ready: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = [], []

    def slow(*_: Any) -> dict[str, Any]:
        running.append(1)
        most.append(len(running))
        time.sleep(0.2)
        running.pop()
        return {"sequence_limit": 1, "rows": []}

    monkeypatch.setattr(data, "run", slow)
    callers = [threading.Thread(target=ask, args=(ready,)) for _ in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (len(most), max(most)) == (5, 2)


def test_rows_are_read_by_the_dialects_rules(wire: Wire) -> None:
    wire.model()
    wire.fileset("rows", {"train.jsonl": lines({"body": "w1 w2", "q": "w3", "a": "w4"})})
    unsloth = ask(wire, backend="unsloth", text_field="body").json()["rows"][0]
    assert (unsloth["format"], unsloth["trained_tokens"]) == ("text", 2)  # nothing stands before the first
    automodel = ask(wire, prompt_template="{q} {a}").json()["rows"][0]
    assert (automodel["format"], automodel["trained_tokens"]) == ("prompt/completion", 2)
    wrong = ask(wire, text_field="body")
    assert (wrong.status_code, wrong.json()["detail"][:29]) == (422, "text_field: automodel has non")


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"model": "nobody"}, "model: Model with workspace 'default' and name 'nobody' not found"),
        ({"dataset": "nothing"}, "dataset: Fileset 'nothing' not found in workspace 'default'"),
        (
            {"dataset": "empty"},
            "dataset: fileset 'default/empty' has no .jsonl or .json file; it holds nothing. Upload",
        ),
        ({"dataset": "hf://a/b"}, "dataset: 'hf://a/b' is not a fileset"),
        ({"prompt_template": "{a}"}, "dataset.prompt_template '{a}' must have two placeholders"),
        ({"chat_template": "{% for %}"}, "the chat template is not lawful jinja"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_its_field(ready: Wire, changes: dict[str, Any], detail: str) -> None:
    ready.fileset("empty", {})
    answer = ask(ready, **changes)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"].startswith(detail)


@pytest.mark.parametrize("body", [{"rows": 0}, {"rows": 101}, {"max_seq_length": 0}, {"backend": "rl"}, {"colour": 1}])
def test_what_the_request_may_not_say(ready: Wire, body: dict[str, Any]) -> None:
    assert ask(ready, **body).status_code == 422


def test_what_a_killed_server_left_is_gone(tmp_path: Path) -> None:
    where = settings(tmp_path)
    left = where.data_dir / "previews" / "x" / "request.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    with LiveServer(where):
        assert not left.exists()


def test_the_sdk_shows_them(ready: Wire, live: LiveServer) -> None:
    from tunesmith import Tunesmith

    with Tunesmith(live.url) as client:
        found = client.previews.create(model="base", dataset="rows", chat_template=CHATML.replace("<|im_end|>", "</s>"))
    assert [row.format for row in found.rows] == ["messages", "prompt/completion"]
