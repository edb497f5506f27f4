"""`tunesmith doctor`: what it finds, what it advises, and that it leaves no trace."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.terminal import run
from tests.client.samples import Platform
from tunesmith import __version__
from tunesmith.cli import doctor, machine
from tunesmith.cli.main import app
from tunesmith.cli.session import Session
from tunesmith.settings import Settings

REQUIREMENTS = [
    "httpx>=0.27",
    'no-such-thing>=3 ; extra == "data"',
    'httpx; extra == "server"',
    'tunesmith[data]; extra == "server"',
    'no-such-thing; extra == "s3"',
    'no-such-thing[binary]>=3; extra == "postgres"',
    'pydantic; extra == "train"',
]


@pytest.fixture
def quick(monkeypatch):
    """torch takes seconds to load."""
    monkeypatch.setattr(doctor.machine, "accelerator", lambda: [machine.Check("torch", "ok", "2.0")])


def by_name(checks):
    return {check.name: check for check in checks}


def test_the_way_out_stands_beside_what_is_missing():
    found = by_name(machine.extras({}, REQUIREMENTS))
    assert (found["extra server"].state, found["extra server"].found) == ("warn", "without no-such-thing")
    assert "pip install 'tunesmith[server]'" in found["extra server"].todo
    assert found["extra train"].state == "ok"
    assert found["extra s3"].state == "ok"
    assert by_name(machine.extras({"TUNESMITH_DATABASE_URL": "x"}, REQUIREMENTS))["extra postgres"].state == "bad"


def test_the_distribution_says_what_belongs_to_its_extras():
    assert {"extra server", "extra train", "extra serve"} <= by_name(machine.extras({})).keys()


@pytest.mark.parametrize(
    ("answers", "states"),
    [
        ({"nvidia-smi": "H200, 141 GiB, 570", "torch": "2.8.0 True"}, {"gpu": "ok", "torch": "ok"}),
        ({"nvidia-smi": "H200, 141 GiB, 570", "torch": "2.8.0+cpu False"}, {"gpu": "ok", "torch": "warn"}),
        ({"torch": "2.8.0+cpu False"}, {"gpu": "ok", "torch": "ok"}),
        ({"nvidia-smi": OSError("driver/library mismatch"), "torch": "2 False"}, {"gpu": "bad", "torch": "ok"}),
        ({"torch": OSError("libcudart.so: cannot open")}, {"gpu": "ok", "torch": "bad"}),
    ],
)
def test_gpu_and_torch_must_know_each_other(answers, states, monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: name if name in answers else None)

    def said(command):
        answer = answers["nvidia-smi" if command[0] == "nvidia-smi" else "torch"]
        if isinstance(answer, OSError):
            raise answer
        return answer

    checks = machine.accelerator(said)
    assert {check.name: check.state for check in checks} == states
    assert all(check.todo for check in checks if check.state != "ok")


def test_without_torch_training_is_what_is_missing(monkeypatch):
    monkeypatch.setattr(machine, "_installed", lambda name: name != "torch")
    assert by_name(machine.accelerator(lambda command: ""))["torch"].state == "warn"


def test_a_program_that_fails_is_quoted():
    with pytest.raises(OSError, match="last words"):
        machine.run([sys.executable, "-c", "import sys; sys.exit('last words')"])


def test_a_disk_is_judged_by_what_is_left(tmp_path, monkeypatch):
    private = tmp_path / "data"
    private.mkdir(mode=0o700)
    room = type("Room", (), {"free": machine.NO_DISK - 1, "total": 10**12})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: room)
    assert [check.state for check in machine.directory(private)] == ["ok", "bad"]
    room.free = machine.LITTLE_DISK - 1
    assert [check.state for check in machine.directory(private)] == ["ok", "warn"]
    room.free = machine.LITTLE_DISK
    private.chmod(0o755)
    assert [check.state for check in machine.directory(private)] == ["warn", "ok"]
    assert "does not exist yet" in machine.directory(private / "a" / "b")[0].found
    (tmp_path / "file").write_text("")
    assert machine.directory(tmp_path / "file")[0].state == "bad"


def test_few_open_files_are_said():
    assert machine.open_files(256).state == "warn"
    assert machine.open_files(4096).state == "ok"


def test_a_key_that_others_can_read_is_bad(tmp_path):
    settings = Settings(data_dir=tmp_path)
    assert doctor.key(settings).state == "ok"
    (tmp_path / "secret.key").write_text("x")
    (tmp_path / "secret.key").chmod(0o644)
    assert doctor.key(settings).state == "bad"
    assert "chmod 600" in doctor.key(settings).todo
    (tmp_path / "secret.key").chmod(0o600)
    assert doctor.key(settings).state == "ok"


def test_a_database_is_read_without_a_trace(tmp_path):
    settings = Settings(data_dir=tmp_path)
    assert "none yet" in doctor.database(settings).found
    path = tmp_path / "tunesmith.db"
    with sqlite3.connect(path) as made:
        made.execute("pragma journal_mode=wal")
        made.execute("create table schema_version (version integer)")
        made.execute("insert into schema_version values (7)")
    made.close()
    assert "version 7" in doctor.database(settings).found
    assert [it.name for it in tmp_path.iterdir()] == ["tunesmith.db"]
    path.write_bytes(b"not a database at all" * 100)
    assert doctor.database(settings).state == "bad"
    path.write_bytes(b"SQLite format 3\x00" + bytes(10_000))
    assert doctor.database(settings).state == "bad"


def test_a_postgresql_that_is_not_there_is_bad():
    check = doctor.database(Settings(database_url="postgresql+psycopg://nobody@127.0.0.1:1/none"))
    assert check.state == "bad"
    assert "TUNESMITH_DATABASE_URL" in check.todo or "pip install" in check.todo


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"status": "healthy", "version": __version__}, "ok"),
        ({"status": "degraded", "version": __version__}, "warn"),
        ({"status": "healthy", "version": "0.0.1"}, "warn"),
    ],
)
def test_client_and_server_should_be_of_one_version(answer, state):
    session = Session(base_url="http://platform", transport=Platform(answer).transport())
    assert doctor.server(session, Settings()).state == state


def test_a_port_is_free_or_taken(monkeypatch, live):
    for name in ("TUNESMITH_BASE_URL", "NMP_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    port = int(live.url.rpartition(":")[2])
    assert doctor.server(Session(), Settings(port=port)).state == "ok"
    assert "http://127.0.0.1:9 " in doctor.server(Session(base_url="http://127.0.0.1:9"), Settings()).found + " "
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        mine = taken.getsockname()[1]
        assert doctor.server(Session(), Settings(port=mine)).state == "bad"
    assert "is free" in doctor.server(Session(), Settings(port=mine)).found


def test_something_else_on_the_port_is_bad(monkeypatch):
    import httpx

    session = Session(
        base_url="http://platform", transport=Platform(httpx.Response(200, text="<html>nginx</html>")).transport()
    )
    check = doctor.server(session, Settings())
    assert (check.state, "no Tunesmith" in check.found) == ("bad", True)


def test_the_doctor_speaks_to_programs_and_to_people_and_writes_nothing(tmp_path, quick, monkeypatch):
    home = tmp_path / "data"
    platform = Platform({"status": "healthy", "version": __version__}, {"status": "healthy", "version": __version__})
    base = ("--base-url", "http://platform", "doctor", "--data-dir", str(home))
    result = run(platform, *base)
    assert result.exit_code == 0, result.output
    assert {check["name"] for check in json.loads(result.stdout)} >= {"python", "torch", "disk", "database", "server"}
    table = run(platform, "--output", "table", *base)
    assert table.stdout.splitlines()[0].split()[:2] == ["ok", "tunesmith"]
    assert list(Path(tmp_path).iterdir()) == []


def test_the_doctor_exits_with_1_when_something_is_bad(tmp_path, quick, monkeypatch):
    monkeypatch.setenv("TUNESMITH_PORT", "many")
    result = CliRunner().invoke(app, ["--output", "table", "doctor"])
    assert result.exit_code == 1
    assert "TUNESMITH_PORT" in result.stdout
    assert "->" in result.stdout
