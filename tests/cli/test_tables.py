"""Tables as people see them: an item a line, names whole, nothing that a terminal would obey."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.cli.terminal import run
from tests.client import samples
from tests.client.samples import Platform, page

NAME = "a-name-that-is-rather-long-as-names-of-filesets-come-to-be"
PROSE = "words and words " * 20


def listed(*arguments: str, **answer: object) -> list[str]:
    result = run(Platform(page({**samples.FILESET, **answer})), "--output", "table", "filesets", "list", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


@pytest.mark.usefixtures("wide")
def test_a_long_description_is_cut_and_an_item_stays_one_line() -> None:
    heading, line = listed(name=NAME, description=PROSE)
    assert len(heading.rstrip()) <= 120
    assert line.startswith(NAME)
    assert "words and" in line
    assert "…" in line


@pytest.mark.usefixtures("wide")
def test_a_name_behind_its_workspace_is_whole_too() -> None:
    assert listed("-A", name=NAME, description=PROSE)[1].split()[:2] == ["default", NAME]


def test_what_is_short_is_shown_whole() -> None:
    assert "two lines of text" in listed(description="two lines\nof text")[1]


def test_no_text_looks_like_nothing() -> None:
    assert listed(description="")[1].split()[3] == "-"


def test_a_terminal_is_not_told_what_to_do_by_a_description() -> None:
    table = listed(description="\x1b]0;owned\x07\x1b[2J")[1]
    assert "owned" in table
    assert "\x1b" not in table
    assert "\x07" not in table


def test_a_thing_has_the_same_headings_whichever_command_shows_it() -> None:
    shown = run(Platform(samples.ADAPTER), "--output", "table", "adapters", "show", "triage").stdout
    assert run(Platform(samples.ADAPTER), "--output", "table", "adapters", "disable", "triage").stdout == shown
    member = run(Platform(samples.MEMBER), "--output", "table", "workspaces", "members", "create", "a@b").stdout
    assert member.startswith("principal")


def test_a_disabled_adapter_is_told_from_others_in_its_models_list() -> None:
    model = {**samples.MODEL, "adapters": [samples.ADAPTER, {**samples.ADAPTER, "name": "old", "enabled": False}]}
    assert "triage, old (disabled)" in run(Platform(page(model)), "--output", "table", "models", "list").stdout


def test_custom_fields_are_shown_as_they_would_be_set() -> None:
    fileset = {**samples.FILESET, "custom_fields": {"team": "mail", "stage": {"of": 3}, "late": True}}
    shown = run(Platform(fileset), "--output", "table", "filesets", "show", "triage").stdout
    assert 'team=mail, stage={"of": 3}, late=true' in shown


def test_a_place_that_cannot_be_written_is_named_as_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    where = tmp_path / "file" / "below"
    files = {"data": [samples.FILE]}
    refused = run(
        Platform(files, httpx.Response(200, content=b"{}")),
        "files",
        "download",
        "triage",
        str(where),
        samples.FILE["path"],
    )
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"{where}: "), refused.stderr


@pytest.mark.parametrize(("count", "said"), [(1, "1 secret is"), (1200, "1,200 secrets are")])
def test_one_is_not_many(count: int, said: str) -> None:
    platform = Platform({"rotated_secrets": count, "success": True})
    assert run(platform, "--output", "table", "secrets", "rotate").stdout.startswith(said)
