"""Pages: every row once and in order, from both ends, with few and with many matches."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from tunesmith.api.base import PageRequest
from tunesmith.api.filesets import CreateFileset
from tunesmith.api.filter_query import parse
from tunesmith.errors import BadRequest, NotFound
from tunesmith.store import pages
from tunesmith.store.database import Database, Tx
from tunesmith.store.tables import filesets

START = datetime.fromisoformat("2026-01-01")
NAMES = [f"f{number:02}" for number in range(23)]


def fill(tx: Tx) -> None:
    for name in random.Random(5).sample(NAMES, len(NAMES)):
        tx.filesets.create("default", CreateFileset(name=name))
        made = START + timedelta(days=int(name[1:]) // 3)  # three at a time: ties
        tx.connection.execute(filesets.update().where(filesets.c.name == name).values(created_at=made))
    tx.filesets.create("system", CreateFileset(name="elsewhere"))


@pytest.fixture
def filled(database: Database) -> Database:
    asyncio.run(database.write(fill))
    return database


def listed(database: Database, workspace: str = "default", size: int = 5, sort: str = "name", text: str = "") -> Any:
    """Names over all pages, and the totals that the pages name."""
    names: list[str] = []
    totals = set()
    for page in range(1, 12):
        asked = PageRequest(page, size, sort, parse([("filter", text)]))
        found = asyncio.run(database.search(lambda tx, asked=asked: tx.filesets.page(workspace, asked)))
        names += [fileset.name for fileset in found.data]
        totals.add((found.pagination.total_results, found.pagination.total_pages))
    return names, totals


@pytest.mark.parametrize("few", [0, 5000])
@pytest.mark.parametrize("sort", ["name", "-name", "created_at", "-created_at"])
def test_every_row_once_and_in_order(filled: Database, monkeypatch: pytest.MonkeyPatch, few: int, sort: str) -> None:
    monkeypatch.setattr(pages, "FEW", few)
    rows = asyncio.run(filled.read(lambda tx: list(tx.connection.execute(filesets.select()).mappings())))
    column = sort.removeprefix("-")
    for text, lawful in (("", "f"), ('name~"1"', "1")):
        kept = [row for row in rows if row["workspace"] == "default" and lawful in row["name"]]
        kept.sort(key=lambda row: (row[column], row["id"]), reverse=sort.startswith("-"))
        names, totals = listed(filled, sort=sort, text=text)
        assert names == [row["name"] for row in kept]
        assert totals == {(len(kept), -(-len(kept) // 5))}


def test_all_workspaces_and_none(filled: Database) -> None:
    assert "elsewhere" in listed(filled, "-")[0]
    assert "elsewhere" not in listed(filled)[0]
    assert listed(filled, "system") == (["elsewhere"], {(1, 1)})
    with pytest.raises(NotFound, match="Workspace 'nowhere' not found"):
        listed(filled, "nowhere")


def test_the_total_follows_every_write(filled: Database) -> None:
    for expected in (23, 24, 25):
        asked = PageRequest(page_size=3, sort="name")
        page = asyncio.run(filled.read(lambda tx, asked=asked: tx.filesets.page("default", asked)))
        assert page.pagination.total_results == expected
        asyncio.run(
            filled.write(lambda tx, name=f"g{expected}": tx.filesets.create("default", CreateFileset(name=name)))
        )


def test_an_unknown_order_is_refused(filled: Database) -> None:
    with pytest.raises(BadRequest, match="sort: 'purpose' is not one of created_at, updated_at, name"):
        listed(filled, sort="purpose")


def test_rows_know_what_they_are(filled: Database) -> None:
    assert listed(filled, text='entity_type:"fileset"')[1] == {(23, 5)}
    assert listed(filled, text='entity_type:"model"')[1] == {(0, 0)}
