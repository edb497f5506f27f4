"""`tunesmith data`: rows are looked at before a job reads them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import Shell, run
from tests.client.samples import Platform
from tests.live import LiveServer, Wire, checkpoint
from tunesmith.cli import data

CHAT = {"messages": [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2 w3"}]}
PLAIN = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def write(path: Path, *rows: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def shell(live: LiveServer, wire: Wire) -> Shell:
    """A platform with a model of words that has a chat template."""
    wire.model(files={**checkpoint(), "chat_template.jinja": PLAIN.encode()})
    return Shell(live.url)


def test_lint_asks_no_platform_and_ends_with_1_when_a_row_is_bad(tmp_path: Path) -> None:
    platform = Platform()
    write(tmp_path / "up" / "train.jsonl", CHAT, "{", {"text": 1})
    found = run(platform, "data", "lint", str(tmp_path))
    assert found.exit_code == 1
    told = json.loads(found.stdout)
    assert [(each["file"], each["line"], each["key"]) for each in told["bad_rows"]] == [
        ("up/train.jsonl", 2, ""),
        ("up/train.jsonl", 3, "text"),
    ]
    assert not platform.requests
    write(tmp_path / "up" / "train.jsonl", CHAT)
    assert run(platform, "data", "lint", str(tmp_path)).exit_code == 0


def test_a_terminal_shows_some_bad_rows_and_counts_the_rest(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", *[{"text": 1}] * 30, CHAT, CHAT)
    found = run(Platform(), "data", "lint", rows, "--output", "table").stdout
    assert f"{rows} line 1: text: must be a string, not a number\n" in found
    assert found.count("must be a string") == 20
    assert "and 10 more: --all shows them" in found
    assert "30 in 1 file" in found
    assert "2: 2 messages" in found
    assert run(Platform(), "data", "lint", rows, "--all", "--output", "table").stdout.count("must be a string") == 30


def test_what_a_row_says_is_not_obeyed_by_the_terminal(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", {"messages": [{"role": "user", "\x1b[2J": 1}]})
    found = run(Platform(), "data", "lint", rows, "--output", "table").stdout
    assert "\x1b" not in found
    assert "\\x1b[2J" in found


def test_lint_reads_by_the_dialects_rules(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", CHAT)
    asked = ("data", "lint", rows, "--dialect", "unsloth")
    assert "dataset.apply_chat_template" in run(Platform(), *asked).stdout
    assert run(Platform(), *asked, "--apply-chat-template").exit_code == 0
    wrong = run(Platform(), "data", "lint", rows, "--text-field", "body")
    assert (wrong.exit_code, "text_field: automodel has none" in wrong.stderr) == (1, True)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    found = run(Platform(), "data", "lint", str(tmp_path / "nothing"))
    assert (found.exit_code, "there is no file or directory" in found.stderr) == (1, True)
    found = run(Platform(), "data", "lint", str(tmp_path))
    assert (found.exit_code, "no training data: looked for" in found.stderr) == (1, True)


def test_without_the_extra_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.data import previews

    monkeypatch.setattr(previews, "find_spec", lambda name: None)
    rows = write(tmp_path / "rows.jsonl", CHAT)
    found = run(Platform(), "data", "lint", rows, "--model", "base")
    assert found.exit_code == 1
    assert "needs jinja2 and tokenizers: pip install 'tunesmith[data]'" in found.stderr
    assert run(Platform(), "data", "lint", rows).exit_code == 0


def test_with_a_model_it_renders_and_counts_tokens(tmp_path: Path, shell: Shell) -> None:
    long = {"text": " ".join(["w1"] * 200)}
    rows = write(tmp_path / "rows.jsonl", CHAT, long, {**CHAT, "tools": [{"name": "f"}]})
    found = shell("data", "lint", rows, "--model", "default/base", fails=1)
    told = json.loads(found.stdout)
    assert [(each["line"], each["key"]) for each in told["bad_rows"]] == [(3, "tools")]
    assert told["tokens"]["limit"] == 128  # the model's context
    assert told["tokens"]["truncated"] == {"count": 1, "first": f"{rows} line 2"}
    assert told["longest"]["tokens"] == 201
    assert "rows may have 128 tokens" in found.stderr


def test_a_preview_marks_what_is_trained_on(tmp_path: Path, shell: Shell) -> None:
    rows = write(tmp_path / "rows.jsonl", CHAT, {"prompt": "w1 w2", "completion": "w3"}, CHAT)
    found = shell("data", "preview", rows, "--model", "base", "--rows", "2").stdout
    assert "rows.jsonl line 1  messages, 4 tokens, 3 trained on\n" in found.replace(str(tmp_path) + "/", "")
    assert "\nw1⟦ w2 w3 </s>⟧\n" in found
    assert "\nw1 w2⟦ w3 </s>⟧\n" in found
    told = json.loads(shell("--output", "json", "data", "preview", rows, "--model", "base", "--rows", "1").stdout)
    assert [piece["trained"] for piece in told["rows"][0]["segments"]] == [False, True]


def test_a_preview_tells_of_a_bad_row(tmp_path: Path, shell: Shell) -> None:
    rows = write(tmp_path / "rows.jsonl", CHAT, {"text": 3})
    assert (
        f"{rows} line 2: key 'text': must be a str" in shell("data", "preview", rows, "--model", "base", fails=1).stderr
    )


def test_a_template_that_loops_is_stopped(tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SECONDS", 4.0)
    template = tmp_path / "loops.jinja"
    template.write_text(LOOPS)
    rows = write(tmp_path / "rows.jsonl", CHAT)
    asked = ("data", "preview", rows, "--model", "base", "--chat-template", str(template))
    assert "the chat template takes too long" in shell(*asked, fails=1).stderr


def test_a_terminal_shows_it_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.client.samples import PREVIEW
    from tunesmith.api.previews import Preview

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    data._show_rows(Preview.model_validate(PREVIEW))
    assert "\x1b[32mhi\x1b[0m" in screen.getvalue()
