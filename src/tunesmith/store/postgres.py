"""PostgreSQL: reads and writes in small pools of threads, so that the event loop never waits for the network.

Writes are serialisable, as they are on SQLite with its one writer: PostgreSQL refuses one of two that cannot be put in
an order, and that one runs again. Reads see one snapshot and may write nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError

from tunesmith.errors import Invalid, ServerStartError
from tunesmith.store.backend import as_json
from tunesmith.store.migrations import migrate

READERS = 8
"""Threads and connections for reads."""
WRITERS = 4
"""Threads and connections for writes: more meet each other more often."""
CONNECT_SECONDS = 10
ATTEMPTS = 20
"""How often a write runs at most, when others come between."""
FIRST_PAUSE_SECONDS = 0.002
LONGEST_PAUSE_SECONDS = 0.2
CAME_BETWEEN = frozenset({"40001", "40P01"})
"""SQLSTATE: could not serialise, deadlock."""
OUR_LOCK = 1_853_189_735
"""First half of the advisory lock's key (any number that no other program takes); the second is the schema's name."""

T = TypeVar("T")


class PostgresBackend:
    """One database for one server: a second one is refused as long as the first runs."""

    def __init__(self, url: str) -> None:
        self.url = _checked(url)
        self._lock_engine = _engine(self.url, 1, isolation_level="AUTOCOMMIT")
        self._writer_engine = _engine(self.url, WRITERS, isolation_level="SERIALIZABLE")
        self._reader_engine = _engine(self.url, READERS, isolation_level="REPEATABLE READ").execution_options(
            postgresql_readonly=True
        )
        try:
            self._lock = self._locked()
            try:
                with self._writer_engine.begin() as connection:
                    migrate(connection)
            except BaseException:
                self._lock.close()
                raise
        except DBAPIError as error:
            self._dispose()
            raise ServerStartError(
                f"the database {_shown(self.url)} cannot be used: {_reason(error)}; "
                "start it, or correct TUNESMITH_DATABASE_URL (--database-url)"
            ) from None
        except BaseException:
            self._dispose()
            raise
        self._readers = ThreadPoolExecutor(READERS, "database-reader")
        self._writers = ThreadPoolExecutor(WRITERS, "database-writer")

    async def read(self, work: Callable[[Connection], T]) -> T:
        """In a thread, on a snapshot."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    async def search(self, work: Callable[[Connection], T]) -> T:
        """As `read`."""
        return await self.read(work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """In a thread, again where another write came between."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, self._write, work)

    def close(self) -> None:
        """Finish what waits, then close all connections; the lock goes last."""
        self._writers.shutdown()
        self._readers.shutdown()
        self._lock.close()
        self._dispose()

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._reader_engine.begin() as connection:
                return work(connection)
        except DataError as error:
            raise _unstorable(error) from error

    def _write(self, work: Callable[[Connection], T]) -> T:
        pause = FIRST_PAUSE_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._writer_engine.begin() as connection:
                    return work(connection)
            except DataError as error:
                raise _unstorable(error) from error
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in CAME_BETWEEN or attempt == ATTEMPTS:
                    raise
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311 - two that met must not meet again
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        raise AssertionError("the last attempt returns or raises")

    def _locked(self) -> Connection:
        """A connection that holds the lock until it is closed; ServerStartError when another server has it."""
        connection = self._lock_engine.connect()
        taken = connection.execute(
            text("select pg_try_advisory_lock(:ours, hashtext(current_schema()))"), {"ours": OUR_LOCK}
        )
        if not taken.scalar_one():
            connection.close()
            raise ServerStartError(
                f"the database {_shown(self.url)} is in use by another Tunesmith server; stop it, "
                "or give this one a database of its own"
            )
        return connection

    def _dispose(self) -> None:
        for engine in (self._writer_engine, self._reader_engine, self._lock_engine):
            engine.dispose()


def _checked(url: str) -> URL:
    try:
        found = make_url(url)
    except ArgumentError:
        found = None
    if found is None or found.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise ServerStartError(
            "the database URL (TUNESMITH_DATABASE_URL, --database-url) must look like "
            "postgresql://user@host:5432/name; leave it out to use SQLite in the data directory"
        )
    return found.set(drivername="postgresql+psycopg")


def _engine(url: URL, connections: int, **options: Any) -> Engine:
    try:
        return create_engine(
            url,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=True,  # a PostgreSQL server that was restarted is met by the next request, not by its failure
            connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "tunesmith"},
            json_serializer=as_json,
            **options,
        )
    except ModuleNotFoundError as error:
        raise ServerStartError(
            f"PostgreSQL needs the package '{error.name}', which is not installed: pip install 'tunesmith[postgres]'"
        ) from None


def _shown(url: URL) -> str:
    """Where it is, without user, password and options."""
    host = url.host or url.query.get("host") or "localhost"
    return f"{url.database or ''} at {host if isinstance(host, str) else ', '.join(host)}:{url.port or 5432}".strip()


def _reason(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split()) or type(error.orig).__name__


def _unstorable(error: DataError) -> Invalid:
    return Invalid(f"a value cannot be stored or compared: {_reason(error)}")
