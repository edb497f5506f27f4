"""Transactions: one writer, groups that fail one by one, a lock on the directory, a version on the tables."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from tunesmith.api.filesets import CreateFileset
from tunesmith.errors import Conflict, NotFound, ServerStartError
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database, Tx


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "t.db")


def make(tx: Tx, name: str) -> str:
    return tx.filesets.create("default", CreateFileset(name=name)).name


def names(tx: Tx) -> list[str]:
    return [row[0] for row in tx.connection.execute(text("select name from filesets order by name"))]


def test_verbs_that_wait_together_share_a_commit_and_fail_alone(database: Database) -> None:
    def fail(tx: Tx) -> None:
        make(tx, "half-done")
        raise Conflict("no")

    async def work() -> list[object]:
        release = threading.Event()
        blocked = asyncio.create_task(database.write(lambda _tx: release.wait(10)))
        await asyncio.sleep(0)
        rest = [database.write(make, "aa"), database.write(fail), database.write(make, "bb")]
        tasks = [asyncio.create_task(each) for each in rest]
        await asyncio.sleep(0)
        release.set()
        await blocked
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return [*results, await database.read(names)]

    first, failure, last, stored = asyncio.run(work())
    assert (first, last) == ("aa", "bb")
    assert isinstance(failure, Conflict)
    assert stored == ["aa", "bb"]


def test_a_group_whose_commit_fails_tells_every_caller(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(database._writer_engine.dialect, "do_commit", broken)
    with pytest.raises(OSError, match="disk full"):
        asyncio.run(database.write(make, "aa"))
    monkeypatch.undo()
    assert asyncio.run(database.write(make, "bb")) == "bb"
    assert asyncio.run(database.read(names)) == ["bb"]


def test_what_was_written_is_there_for_the_next_server(database: Database, tmp_path: Path) -> None:
    asyncio.run(database.write(make, "aa"))
    database.close()
    again = Database(tmp_path / "t.db")
    assert asyncio.run(again.read(names)) == ["aa"]


def test_a_database_of_a_newer_version_is_refused(database: Database, tmp_path: Path) -> None:
    asyncio.run(database.write(lambda tx: tx.connection.execute(text("update schema_version set version = 999"))))
    database.close()
    with pytest.raises(ServerStartError, match="schema version 999"):
        Database(tmp_path / "t.db")


def test_twins_and_strangers_are_told_apart(database: Database) -> None:
    asyncio.run(database.write(make, "aa"))
    with pytest.raises(Conflict, match="Fileset 'default/aa' already exists"):
        asyncio.run(database.write(make, "aa"))
    with pytest.raises(NotFound, match="Fileset 'zz' not found in workspace 'default'"):
        asyncio.run(database.read(lambda tx: tx.filesets.get("default", "zz")))


def test_a_device_is_held_by_one(database: Database) -> None:
    async def work() -> list[list[str]]:
        devices = ["cpu:0", "cpu:1"]
        await database.write(lambda tx: tx.leases.take("cpu:0", "job", "a"))
        free = [await database.read(lambda tx: tx.leases.free(devices))]
        with pytest.raises(Exception, match="UNIQUE"):
            await database.write(lambda tx: tx.leases.take("cpu:0", "job", "b"))
        await database.write(lambda tx: tx.leases.release("job", "a"))
        return [*free, await database.read(lambda tx: tx.leases.free(devices))]

    assert asyncio.run(work()) == [["cpu:1"], ["cpu:0", "cpu:1"]]


def test_a_second_server_on_one_data_directory_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    first = DataDir(tmp_path / "data")
    first.lock()
    with pytest.raises(ServerStartError, match=r"in use by another Tunesmith server \(process \d+\).*--data-dir"):
        DataDir(tmp_path / "data").lock()
    first.unlock()
    DataDir(tmp_path / "data").lock()


def test_the_data_directory_is_private(tmp_path: Path) -> None:
    assert DataDir(tmp_path / "data").root.stat().st_mode & 0o777 == 0o700
