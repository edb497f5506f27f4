"""One page of a table's rows, from any place of a long list, by indexes.

SQLite chooses an index without knowing how many rows a condition leaves. We do, since a page says how many there are in
all: a few are found first and sorted then; many are met in the order of the list, from its nearer end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, Table, func, literal_column, select

from tunesmith.api.base import PageRequest
from tunesmith.errors import BadRequest

SORTABLE = ("created_at", "updated_at", "name")
FEW = 5000
"""Rows that are sorted sooner than met by chance."""
SNAPSHOT = "tunesmith_snapshot"
"""Execution option of SQLite connections that only read."""


def rows_of_page(
    connection: Connection, table: Table, asked: PageRequest, where: Sequence[ColumnElement[bool]], whole: str | None
) -> tuple[list[RowMapping], int]:
    """The page's rows in order, and how many rows there are in all.

    `whole` names the workspace when `where` says nothing else. BadRequest for an order that the table does not have.
    """
    name, descending = asked.sort.removeprefix("-"), asked.sort.startswith("-")
    if name not in SORTABLE:
        raise BadRequest(f"sort: '{asked.sort}' is not one of {', '.join(SORTABLE)}, each with or without '-'")
    total = _total(connection, table, where, whole)
    offset = (asked.page - 1) * asked.page_size
    wanted = min(asked.page_size, total - offset)
    if wanted <= 0:
        return [], total
    behind = total - offset - wanted
    backwards = behind < offset
    ids = _ordered(
        connection, table, where, name, few=whole is None and total <= FEW, descending=descending != backwards
    )
    found = connection.execute(ids.limit(wanted).offset(behind if backwards else offset)).scalars().all()
    if backwards:
        found = found[::-1]
    # The rest of each row comes last: skipping whole rows to reach a far page costs too much.
    rows = {row["id"]: row for row in connection.execute(select(table).where(table.c.id.in_(found))).mappings()}
    return [rows[each] for each in found], total


def _ordered(
    connection: Connection,
    table: Table,
    where: Sequence[ColumnElement[bool]],
    name: str,
    *,
    few: bool,
    descending: bool,
) -> Select[Any]:
    """The ids in order, ties by id."""
    if few and connection.dialect.name == "sqlite":
        matching: Select[Any] = select(literal_column(f'"{table.name}".rowid')).select_from(table).where(*where)
        # The limit keeps SQLite from turning this inside out, and walking the whole order in search of the few.
        held = select(table.c.id, table.c[name]).where(literal_column(f'"{table.name}".rowid').in_(matching)).limit(-1)
        source = held.subquery()
        columns, query = source.c, select(source.c.id)
    else:
        columns, query = table.c, select(table.c.id).where(*where)
    if descending:
        return query.order_by(columns[name].desc(), columns.id.desc())
    return query.order_by(columns[name].asc(), columns.id.asc())


def _total(connection: Connection, table: Table, where: Sequence[ColumnElement[bool]], whole: str | None) -> int:
    """How many rows there are. Of whole lists this is remembered until anybody writes: counting 100,000 takes 6 ms."""
    query = select(func.count()).select_from(table).where(*where)
    if whole is None or not connection.get_execution_options().get(SNAPSHOT):
        return connection.execute(query).scalar_one()
    version = connection.exec_driver_sql("pragma data_version").scalar_one()
    seen, totals = connection.info.get("totals", (None, {}))
    if seen != version:
        totals = {}
        connection.info["totals"] = version, totals
    if (table.name, whole) not in totals:
        totals[table.name, whole] = connection.execute(query).scalar_one()
    found: int = totals[table.name, whole]
    return found
