"""The whole application on PostgreSQL, and what is said when there is none."""

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests.live import FILES, MODELS, LiveServer, Wire, settings
from tunesmith.api.base import PageRequest
from tunesmith.api.filesets import CreateFileset
from tunesmith.errors import Invalid, ServerStartError
from tunesmith.store.database import Database, Tx


def test_nouns_over_the_wire_and_after_a_restart(postgres_url: str, tmp_path: Path) -> None:
    here = replace(settings(tmp_path), database_url=postgres_url)
    with LiveServer(here) as server:
        wire = Wire(server.http)
        wire.model("base")
        for name in ("one", "two"):
            wire.fileset(name, {"a.txt": name.encode()})
        answer = server.http.patch(f"{FILES}/one", json={"description": "changed"})
        assert answer.status_code == 200, answer.text
        found = server.http.get(FILES, params={"filter[name][$like]": "O", "sort": "-name"}).json()
        assert [each["name"] for each in found["data"]] == ["two", "one"]
        assert server.http.delete(f"{FILES}/two").status_code == 200
        assert server.http.get(FILES, params={"filter[nothing]": "x"}).status_code == 400
        assert server.http.get("/health/ready").status_code == 200
    assert not (tmp_path / "data" / "tunesmith.db").exists()
    with LiveServer(here) as server:
        assert {each["name"] for each in server.http.get(FILES).json()["data"]} == {"base", "one"}
        assert server.http.get(f"{FILES}/one").json()["description"] == "changed"
        assert server.http.get(f"{FILES}/one/-/a.txt").content == b"one"
        assert server.http.get(f"{MODELS}/base").json()["fileset"] == "default/base"


def test_a_second_server_on_one_database_is_refused(postgres_url: str) -> None:
    first = Database(postgres_url)
    try:
        with pytest.raises(ServerStartError, match="in use by another Tunesmith server"):
            Database(postgres_url)
    finally:
        first.close()
    Database(postgres_url).close()


def test_a_write_that_met_another_runs_again(postgres_url: str) -> None:
    database = Database(postgres_url)
    both_have_read = threading.Barrier(2)
    runs: list[str] = []

    def count_then_make(tx: Tx, name: str) -> None:
        runs.append(name)
        held = len(tx.filesets.page("default", PageRequest()).data)
        if len(runs) <= 2:
            both_have_read.wait(10)
        tx.filesets.create("default", CreateFileset(name=name, description=str(held)))

    async def work() -> list[str | None]:
        await asyncio.gather(*(database.write(count_then_make, name) for name in ("aa", "bb")))
        found = await database.read(lambda tx: tx.filesets.page("default", PageRequest()))
        return sorted(str(fileset.description) for fileset in found.data)

    assert asyncio.run(work()) == ["0", "1"]
    assert len(runs) == 3
    database.close()


def test_reads_write_nothing(postgres_url: str) -> None:
    database = Database(postgres_url)
    with pytest.raises(Exception, match="read-only transaction"):
        asyncio.run(database.read(lambda tx: tx.filesets.create("default", CreateFileset(name="aa"))))
    database.close()


def test_a_value_that_postgres_cannot_hold_is_the_callers_fault(postgres_url: str) -> None:
    database = Database(postgres_url)
    with pytest.raises(Invalid, match="NUL"):
        asyncio.run(
            database.write(lambda tx: tx.filesets.create("default", CreateFileset(name="aa", description="\0")))
        )
    database.close()


def test_a_connection_that_broke_is_replaced(postgres_url: str) -> None:
    database = Database(postgres_url)
    asyncio.run(database.read(lambda tx: tx.filesets.page("default", PageRequest())))
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'tunesmith' and pid <> pg_backend_pid() and query not like '%advisory%'"
        )
    assert asyncio.run(database.read(lambda tx: tx.filesets.page("default", PageRequest()))).data == []
    asyncio.run(database.write(lambda tx: tx.filesets.create("default", CreateFileset(name="aa"))))
    database.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://user:canary@127.0.0.1:1/name", r"name at 127\.0\.0\.1:1 cannot be used: .*Connection refused"),
        ("postgresql://user@127.0.0.1:1/name?password=canary", r"name at 127\.0\.0\.1:1 cannot be used"),
        ("mysql://user:canary@host/name", "must look like postgresql://user@host:5432/name"),
        ("canary", "must look like postgresql://user@host:5432/name"),
    ],
)
def test_what_cannot_be_reached_is_named_without_its_password(url: str, said: str) -> None:
    with pytest.raises(ServerStartError, match=said) as refused:
        Database(url)
    assert "canary" not in str(refused.value)


def test_a_database_that_does_not_exist_is_named(postgres_url: str) -> None:
    with pytest.raises(ServerStartError, match='database "nosuch" does not exist'):
        Database(postgres_url.replace("/postgres?", "/nosuch?"))


def test_without_its_driver_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ServerStartError, match=r"pip install 'tunesmith\[postgres\]'"):
        Database("postgresql://user@127.0.0.1:1/name")
