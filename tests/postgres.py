"""A real PostgreSQL for tests: one server a session, emptied for each test."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine

from tunesmith.store.database import Database
from tunesmith.store.migrations import seed
from tunesmith.store.tables import metadata


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server with Tunesmith's tables in its database `postgres`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs has no XDG_RUNTIME_DIR in a container
        import pgserver
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-postgres-"))  # not pytest's: as root, another user runs the server
    server = pgserver.get_server(folder)
    try:
        url: str = server.get_uri()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("alter system set fsync = off")
            connection.execute("alter system set synchronous_commit = off")
            connection.execute("select pg_reload_conf()")
        Database(url).close()
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """As a fresh installation leaves it."""
    engine = create_engine(postgres_server.replace("postgresql:", "postgresql+psycopg:", 1))
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
        seed(connection)
    engine.dispose()
    return postgres_server
