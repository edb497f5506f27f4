"""Tests of the store run on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres import postgres_server, postgres_url  # noqa: F401 fixtures
from tunesmith.store.database import Database


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where an empty database is: a path or a URL."""
    if request.param == "sqlite":
        return tmp_path / "tunesmith.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def reopen(where: Path | str) -> Iterator[Callable[[], Database]]:
    """Opens the database, after closing what was open."""
    opened: list[Database] = []

    def again() -> Database:
        while opened:
            opened.pop().close()
        opened.append(Database(where))
        return opened[0]

    yield again
    while opened:
        opened.pop().close()


@pytest.fixture
def database(reopen: Callable[[], Database]) -> Database:
    """An empty database."""
    return reopen()
