"""SQLite in WAL mode in one file: one writer thread, reads inline.

A write runs in the writer thread inside BEGIN IMMEDIATE (a deferred read-then-write would meet "database is locked",
which no time-out cures). Writes that wait at the same time share one commit, each in a savepoint of its own.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from tunesmith.store.backend import as_json
from tunesmith.store.migrations import migrate
from tunesmith.store.pages import SNAPSHOT

GROUP_LIMIT = 64
"""Writes that share one commit at most."""

T = TypeVar("T")


class SqliteBackend:
    """One connection for the writer thread, one for the event loop, one for a thread that searches."""

    def __init__(self, path: Path) -> None:
        self.writer_engine = _engine(path, "begin immediate")
        self.reader_engine = _engine(path, "begin").execution_options(**{SNAPSHOT: True})
        self.search_engine = _engine(path, "begin").execution_options(**{SNAPSHOT: True})
        with self.writer_engine.begin() as connection:
            migrate(connection)
        # Kept, since taking a connection from its pool and handing it back costs a third of a read by name.
        self._writing = self.writer_engine.connect()
        self._reading = self.reader_engine.connect()
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_until_closed, name="database-writer", daemon=True)
        self._writer.start()
        self._searcher = ThreadPoolExecutor(1, "database-search")

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Inline: an indexed read is shorter than a thread's hop."""
        with self._reading.begin():
            return work(self._reading)

    async def search(self, work: Callable[[Connection], T]) -> T:
        """In a thread: SQLite lets go of the interpreter while it looks."""
        return await asyncio.get_running_loop().run_in_executor(self._searcher, _run, self.search_engine, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """In the writer's turn, together with what else waits."""
        write = _Write(work)
        self._waiting.put(write)
        result: T = await asyncio.wrap_future(write.future)
        return result

    def close(self) -> None:
        """Finish the writes that wait, then close the file."""
        self._waiting.put(None)
        self._writer.join()
        self._searcher.shutdown()
        self._reading.close()
        self._writing.close()
        for engine in (self.search_engine, self.reader_engine, self.writer_engine):
            engine.dispose()

    def _write_until_closed(self) -> None:
        while (first := self._waiting.get()) is not None:
            group = [first]
            closing = False
            while len(group) < GROUP_LIMIT and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    closing = True
                    break
                group.append(following)
            self._commit(group)
            if closing:
                return

    def _commit(self, group: list[_Write]) -> None:
        """Run a group in one transaction, each write in a savepoint of its own; answer after the commit."""
        answers: list[Callable[[], None]] = []
        try:
            with self._writing.begin():
                answers = [write.run(self._writing) for write in group]
        except Exception as error:  # noqa: BLE001 - the commit itself failed: every caller of the group must hear it
            answers = [lambda w=write, e=error: w.fail(e) for write in group]  # type: ignore[misc]
        for answer in answers:
            answer()


def _run(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


class _Write:
    """Work in the writer's queue and the future its caller awaits."""

    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()

    def run(self, connection: Connection) -> Callable[[], None]:
        """Run the work now; the returned function tells the caller, and is called after the commit."""
        if not self.future.set_running_or_notify_cancel():
            return lambda: None
        try:
            with connection.begin_nested():
                result = self.work(connection)
        except Exception as error:  # noqa: BLE001 - handed to the caller, whose work it is
            failure = error
            return lambda: self.future.set_exception(failure)
        return lambda: self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """Tell the caller that the commit failed."""
        if not self.future.cancelled():
            self.future.set_exception(error)


def _engine(path: Path, begin: str) -> Engine:
    """One connection to `path` whose transactions start with `begin`."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": 30},
        json_serializer=as_json,
    )

    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver must not open transactions of its own
        for pragma in ("journal_mode=wal", "synchronous=full", "foreign_keys=on", "temp_store=memory"):
            connection.execute(f"pragma {pragma}")

    def start(connection: Connection) -> None:
        held = connection.connection.driver_connection
        assert isinstance(held, sqlite3.Connection)
        if held.in_transaction:
            held.rollback()  # left open by a commit that failed: the disk was full
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", start)
    return engine
