"""Transactions: writes that fail one by one, reads on a snapshot, what a second server and a second start find."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tunesmith.api.filesets import CreateFileset
from tunesmith.errors import Conflict, NotFound, ServerStartError
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database, Tx
from tunesmith.store.rows import upsert
from tunesmith.store.sqlite import SqliteBackend
from tunesmith.store.tables import Json, Text, metadata, metrics


def make(tx: Tx, name: str) -> str:
    return tx.filesets.create("default", CreateFileset(name=name)).name


def names(tx: Tx) -> list[str]:
    return [row[0] for row in tx.connection.execute(text("select name from filesets order by name"))]


def test_writes_that_meet_fail_alone(database: Database) -> None:
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


def test_a_group_whose_commit_fails_tells_every_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk full")

    database = Database(tmp_path / "t.db")
    assert isinstance(database.backend, SqliteBackend)
    monkeypatch.setattr(database.backend.writer_engine.dialect, "do_commit", broken)
    with pytest.raises(OSError, match="disk full"):
        asyncio.run(database.write(make, "aa"))
    monkeypatch.undo()
    assert asyncio.run(database.write(make, "bb")) == "bb"
    assert asyncio.run(database.read(names)) == ["bb"]


def test_read_then_write_by_many_at_once_loses_nothing(database: Database) -> None:
    def count(tx: Tx) -> None:
        held = tx.connection.execute(text("select count(*) from leases")).scalar_one()
        tx.leases.take(f"cpu:{held}", "job", "a")

    async def work() -> int:
        await asyncio.gather(*(database.write(count) for _ in range(12)))
        return await database.read(lambda tx: len(tx.leases.free([f"cpu:{slot}" for slot in range(12)])))

    assert asyncio.run(work()) == 0


def test_a_read_sees_one_moment(database: Database) -> None:
    async def work() -> tuple[int, int]:
        seen, written = threading.Event(), threading.Event()

        def twice(tx: Tx) -> tuple[int, int]:
            before = len(names(tx))
            seen.set()
            assert written.wait(10)
            return before, len(names(tx))

        reading = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(database.read(twice))))
        await asyncio.to_thread(seen.wait, 10)
        await database.write(make, "aa")
        written.set()
        return await reading

    assert asyncio.run(work()) == (0, 0)


def test_what_was_written_is_there_for_the_next_server(reopen: Callable[[], Database]) -> None:
    asyncio.run(reopen().write(make, "aa"))
    assert asyncio.run(reopen().read(names)) == ["aa"]


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
        with pytest.raises(IntegrityError):
            await database.write(lambda tx: tx.leases.take("cpu:0", "job", "b"))
        await database.write(lambda tx: tx.leases.release("job", "a"))
        return [*free, await database.read(lambda tx: tx.leases.free(devices))]

    assert asyncio.run(work()) == [["cpu:1"], ["cpu:0", "cpu:1"]]


def test_an_upsert_replaces_what_is_there(database: Database) -> None:
    def put(tx: Tx, path: str, size: int) -> None:
        held = tx.filesets.row("default", "aa")
        statement = upsert(tx.connection, metadata.tables["files"]).values(
            fileset_id=held["id"], path=path, digest="d", size=size, created_at=held["created_at"]
        )
        changed = {"size": statement.excluded.size}
        tx.connection.execute(statement.on_conflict_do_update(index_elements=["fileset_id", "path"], set_=changed))

    async def work() -> list[tuple[str, int]]:
        await database.write(make, "aa")
        for path, size in (("x", 1), ("y", 2), ("x", 3)):
            await database.write(put, path, size)
        return await database.read(
            lambda tx: [tuple(row) for row in tx.connection.execute(text("select path, size from files order by path"))]
        )

    assert asyncio.run(work()) == [("x", 3), ("y", 2)]


def test_a_second_server_on_one_data_directory_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    first = DataDir(tmp_path / "data")
    first.lock()
    with pytest.raises(ServerStartError, match=r"in use by another Tunesmith server \(process \d+\).*--data-dir"):
        DataDir(tmp_path / "data").lock()
    first.unlock()
    DataDir(tmp_path / "data").lock()


def test_the_data_directory_is_private(tmp_path: Path) -> None:
    assert DataDir(tmp_path / "data").root.stat().st_mode & 0o777 == 0o700


def test_every_text_column_is_sorted_alike_and_no_column_holds_a_json_null() -> None:
    for table in metadata.tables.values():
        for column in table.columns:
            kind = type(column.type).__name__
            assert kind != "String" or column.type is Text, f"{table.name}.{column.name} should be Text"
            assert kind != "JSON" or column.type is Json, f"{table.name}.{column.name} should be Json"
    assert metrics.c.series.type.dialect_impl(_postgresql()).collation == "C"  # type: ignore[attr-defined]


def _postgresql():
    from sqlalchemy.dialects import postgresql

    return postgresql.dialect()
