"""The database: one writer thread, reads inline, and a transaction object that knows every noun.

A verb is a plain function `def verb(tx, ...)`. `await database.write(verb, ...)` runs it in the writer thread inside
BEGIN IMMEDIATE (a deferred read-then-write would meet "database is locked", which no time-out cures) and returns when
its commit is on disk. Verbs that wait at the same time share one commit; one that raises is rolled back alone.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from tunesmith.store.adapters import Adapters
from tunesmith.store.deployments import Deployments
from tunesmith.store.filesets import Filesets
from tunesmith.store.jobs import Jobs
from tunesmith.store.leases import Leases
from tunesmith.store.migrations import migrate
from tunesmith.store.models import Models
from tunesmith.store.workspaces import Workspaces

GROUP_LIMIT = 64
"""Verbs that share one commit at most."""

P = ParamSpec("P")
T = TypeVar("T")


class Tx:
    """One transaction, and a repository per noun in it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @cached_property
    def workspaces(self) -> Workspaces:
        """Boundaries around everything else."""
        return Workspaces(self.connection)

    @cached_property
    def filesets(self) -> Filesets:
        """Named collections of files."""
        return Filesets(self.connection)

    @cached_property
    def models(self) -> Models:
        """Model entities."""
        return Models(self.connection)

    @cached_property
    def adapters(self) -> Adapters:
        """Trained weights beside a model's own."""
        return Adapters(self.connection)

    @cached_property
    def jobs(self) -> Jobs:
        """Jobs with their steps and metrics."""
        return Jobs(self.connection)

    @cached_property
    def leases(self) -> Leases:
        """Which device is taken by whom."""
        return Leases(self.connection)

    @cached_property
    def deployments(self) -> Deployments:
        """Deployment configs and deployments."""
        return Deployments(self.connection)


class Database:
    """SQLite in WAL mode in one file, opened for the life of the process."""

    def __init__(self, path: Path) -> None:
        self._writer_engine = _engine(path, "begin immediate")
        self._reader_engine = _engine(path, "begin")
        with self._writer_engine.begin() as connection:
            migrate(connection)
        self._verbs: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_until_closed, name="database-writer", daemon=True)
        self._writer.start()

    async def read(self, verb: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `verb(tx, ...)` returns, on a snapshot. Runs inline: an indexed read is shorter than a thread's hop."""
        with self._reader_engine.begin() as connection:
            return verb(Tx(connection), *args, **kwargs)

    async def write(self, verb: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `verb(tx, ...)` returns, after its commit; its exception, after its rollback."""
        waiting = _Waiting(lambda tx: verb(tx, *args, **kwargs))
        self._verbs.put(waiting)
        result: T = await asyncio.wrap_future(waiting.future)
        return result

    def close(self) -> None:
        """Finish the verbs that wait, then close the file."""
        self._verbs.put(None)
        self._writer.join()
        self._writer_engine.dispose()
        self._reader_engine.dispose()

    def _write_until_closed(self) -> None:
        while (first := self._verbs.get()) is not None:
            group = [first]
            closing = False
            while len(group) < GROUP_LIMIT and not self._verbs.empty():
                following = self._verbs.get()
                if following is None:
                    closing = True
                    break
                group.append(following)
            self._commit(group)
            if closing:
                return

    def _commit(self, group: list[_Waiting]) -> None:
        """Run a group in one transaction, each verb in a savepoint of its own; answer after the commit."""
        answers: list[Callable[[], None]] = []
        try:
            with self._writer_engine.begin() as connection:
                answers = [waiting.run(connection) for waiting in group]
        except Exception as error:  # noqa: BLE001 - the commit itself failed: every caller of the group must hear it
            answers = [lambda w=waiting, e=error: w.fail(e) for waiting in group]  # type: ignore[misc]
        for answer in answers:
            answer()


class _Waiting:
    """A verb in the writer's queue and the future its caller awaits."""

    def __init__(self, verb: Callable[[Tx], Any]) -> None:
        self.verb = verb
        self.future: Future[Any] = Future()

    def run(self, connection: Connection) -> Callable[[], None]:
        """Run the verb now; the returned function tells the caller, and is called after the commit."""
        if not self.future.set_running_or_notify_cancel():
            return lambda: None
        try:
            with connection.begin_nested():
                result = self.verb(Tx(connection))
        except Exception as error:  # noqa: BLE001 - handed to the caller, whose verb it is
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
    )

    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver must not open transactions of its own
        for pragma in ("journal_mode=wal", "synchronous=full", "foreign_keys=on", "temp_store=memory"):
            connection.execute(f"pragma {pragma}")

    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", start)
    return engine
