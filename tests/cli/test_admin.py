"""`tunesmith gc`, `backup` and `restore`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.live import FILES, LiveServer, Wire, settings
from tunesmith.cli.main import app
from tunesmith.settings import Settings


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory that no server has, with one file that nothing needs and one that a fileset holds."""
    monkeypatch.delenv("TUNESMITH_BASE_URL", raising=False)
    monkeypatch.setenv("TUNESMITH_DATA_DIR", str(tmp_path / "data"))
    with LiveServer(settings(tmp_path)) as live:
        wire = Wire(live.http)
        wire.fileset("gone", {"f": b"unneeded"})
        wire.fileset("kept", {"f": b"needed"})
        wire.http.delete(f"{FILES}/gone")
    return tmp_path / "data"


def tunesmith(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_what_the_command_line_says_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.server import main

    served: list[Settings] = []
    monkeypatch.setattr(main, "serve", served.append)
    monkeypatch.setenv("TUNESMITH_PORT", "1234")
    monkeypatch.setenv("TUNESMITH_DATABASE_URL", "postgresql://from/environment")
    assert tunesmith("up", "--data-dir", tmp_path, "--database-url", "postgresql://me@db/tunes").exit_code == 0
    (asked,) = served
    assert (asked.data_dir, asked.port, asked.database_url) == (tmp_path, 1234, "postgresql://me@db/tunes")


def test_gc_works_by_itself_where_no_server_runs(data_dir: Path) -> None:
    counted = tunesmith("gc", "--dry-run", "--output", "json")
    assert json.loads(counted.output)["blobs"] == 1
    done = tunesmith("gc", "--data-dir", data_dir, "--output", "table")
    assert done.exit_code == 0, done.output
    assert "1 contents of files: 8 B" in done.output
    assert json.loads(tunesmith("gc", "--output", "json").output)["blobs"] == 0
    assert tunesmith("gc", "--output", "table").output == "nothing to free: everything here is needed\n"


def test_gc_of_a_directory_that_is_none_asks_no_other_platform(tmp_path: Path) -> None:
    refused = tunesmith("gc", "--data-dir", tmp_path / "typo")
    assert refused.exit_code == 1
    assert "holds no tunesmith.db" in refused.output
    assert not (tmp_path / "typo").exists()


def test_gc_asks_the_server_that_has_the_directory(data_dir: Path, tmp_path: Path) -> None:
    with LiveServer(settings(tmp_path)) as live:
        done = tunesmith("--base-url", live.url, "gc", "--output", "json")
        assert json.loads(done.output)["blobs"] == 1


def test_a_backup_is_restored_into_a_new_directory(data_dir: Path, tmp_path: Path) -> None:
    made = tunesmith("backup", tmp_path / "b.tar")
    assert made.exit_code == 0, made.output
    assert "the database and the contents of 1 file," in made.output
    again = tunesmith("backup", tmp_path / "b.tar")
    assert again.exit_code == 1
    back = tunesmith("restore", tmp_path / "b.tar", "--data-dir", tmp_path / "new")
    assert back.exit_code == 0, back.output
    assert [path for path in (tmp_path / "new").rglob("*") if path.stat().st_mode & 0o077] == []
    with LiveServer(Settings(data_dir=tmp_path / "new", port=0)) as live:
        assert live.http.get(f"{FILES}/kept/-/f").content == b"needed"


def test_a_backup_into_a_directory_that_is_not_there_says_so(data_dir: Path, tmp_path: Path) -> None:
    refused = tunesmith("backup", tmp_path / "none" / "b.tar")
    assert refused.exit_code == 1
    assert f"there is no directory {tmp_path / 'none'}" in refused.output


def test_the_database_of_a_postgresql_server_is_left_to_pg_dump(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_DATABASE_URL", "postgresql://somewhere/else")
    refused = tunesmith("backup", tmp_path / "b.tar")
    assert refused.exit_code == 1
    assert "pg_dump" in refused.output
    assert not (tmp_path / "b.tar").exists()
