"""What the repositories of named things share: one row by name, one page in order, an insert that meets a twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Table,
    bindparam,
    delete,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.dml import ReturningInsert

from tunesmith.api.base import Page, PageRequest, paged
from tunesmith.errors import Conflict, Invalid, NotFound
from tunesmith.store.filtering import Field, condition
from tunesmith.store.ids import new_id, now
from tunesmith.store.pages import rows_of_page
from tunesmith.store.tables import projects, workspaces

ALL_WORKSPACES = "-"
EVERYWHERE = ("id", "name", "workspace", "project", "description", "created_at", "updated_at")
"""Columns that every noun may be filtered by."""

T = TypeVar("T")


_OPEN = select(workspaces.c.id).where(workspaces.c.name == bindparam("name"), workspaces.c.deleting_at.is_(None))


@cache
def _by_name(table: Table) -> Select[Any]:
    """Made once a table: building a statement takes longer than running it."""
    return select(table).where(table.c.workspace == bindparam("workspace"), table.c.name == bindparam("name"))


@cache
def _insert_one(table: Table, dialect: str) -> ReturningInsert[Any]:
    """The new row, or nothing when its name is taken."""
    insert_here = _insert_in(dialect, table).on_conflict_do_nothing(index_elements=["workspace", "name"])
    return insert_here.returning(*table.c)


def upsert(connection: Connection, table: Table) -> sqlite.Insert:
    """An insert with `on_conflict_do_update`, `on_conflict_do_nothing`, `excluded`, in the database's dialect."""
    return _insert_in(connection.dialect.name, table)


def _insert_in(dialect: str, table: Table) -> sqlite.Insert:
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # its drivers' dialects come with it: 30 ms of a start

        return cast("sqlite.Insert", postgresql.insert(table))
    return sqlite.insert(table)


class Named:
    """Rows of one table, addressed by workspace and name."""

    table: Table
    kind: str
    """First part of an id: `fileset` in `fileset-4fB...`."""
    missing: str
    """What a 404 says; `{workspace}` and `{name}` are filled in."""
    twin: str
    """What a 409 says; `{workspace}` and `{name}` are filled in."""
    filterable: Mapping[str, Field] = {}
    """Fields that a list may be narrowed by, beside `EVERYWHERE`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def row(self, workspace: str, name: str) -> RowMapping:
        """The row of that name; NotFound says which and where."""
        row = self.find_row(workspace, name)
        if row is None:
            raise NotFound(self.missing.format(workspace=workspace, name=name))
        return row

    def find_row(self, workspace: str, name: str) -> RowMapping | None:
        """The row of that name, or None."""
        found = self.connection.execute(_by_name(self.table), {"workspace": workspace, "name": name})
        return found.mappings().one_or_none()

    def insert(self, workspace: str, name: str, **values: Any) -> RowMapping:
        """A new row with an id and two timestamps.

        Conflict if the name is taken; Invalid without such a workspace, or without the project that `values` name.
        """
        self.must_be_open(workspace)
        at = now()
        row = {"id": new_id(self.kind), "workspace": workspace, "name": name, "created_at": at, "updated_at": at}
        if "project" in values:
            values["project"] = self.checked_project(workspace, values["project"])
        statement = _insert_one(self.table, self.connection.dialect.name)
        inserted = self.connection.execute(statement, {**row, **values}).mappings().one_or_none()
        if inserted is None:
            raise Conflict(self.twin.format(workspace=workspace, name=name))
        return inserted

    def change(self, row: RowMapping, **values: Any) -> RowMapping:
        """The row with other values and a new `updated_at`; Invalid without the project that `values` name.

        Without values it is the row as it is.
        """
        if not values:
            return row
        if "project" in values:
            values["project"] = self.checked_project(row["workspace"], values["project"])
        statement = update(self.table).where(self.table.c.id == row["id"])
        self.connection.execute(statement.values(**values, updated_at=now()))
        return self.row(row["workspace"], row["name"])

    def delete(self, workspace: str, name: str) -> RowMapping:
        """Take the row out and return it; NotFound without it."""
        row = self.row(workspace, name)
        self.connection.execute(delete(self.table).where(self.table.c.id == row["id"]))
        return row

    def page_of(
        self,
        workspace: str,
        asked: PageRequest,
        read: Callable[[Sequence[RowMapping]], list[T]],
        *where: ColumnElement[bool],
    ) -> Page[T]:
        """One page of a workspace's rows (`-` = of all), narrowed by the filter, as `read` turns them into resources.

        NotFound without the workspace; BadRequest for a filter or an order that this noun does not have.
        """
        whole = None if where or asked.filter is not None else workspace
        if workspace != ALL_WORKSPACES:
            where = (self.table.c.workspace == workspace, *where)
        if asked.filter is not None:
            where = (*where, condition(asked.filter, self._fields()))
        rows, total = rows_of_page(self.connection, self.table, asked, where, whole)
        if not total and workspace != ALL_WORKSPACES:
            self.must_exist(workspace)
        return paged(read(rows) if rows else [], total, asked)

    def must_exist(self, workspace: str) -> None:
        """NotFound without the workspace."""
        if not self._is_open(workspace):
            raise NotFound(f"Workspace '{workspace}' not found")

    def must_be_open(self, workspace: str) -> None:
        """Invalid without the workspace, or while it is being deleted."""
        if not self._is_open(workspace):
            raise Invalid(f"Workspace '{workspace}' does not exist. Please create the workspace first.")

    def checked_project(self, workspace: str, project: str | None) -> str | None:
        """The project's bare name, None for none; Invalid when the workspace has no such project."""
        if not project:
            return None
        where, _, name = project.rpartition("/")
        query = select(projects.c.id).where(projects.c.workspace == workspace, projects.c.name == name)
        if where not in ("", workspace) or self.connection.execute(query).first() is None:
            raise Invalid(
                f"project: '{project}' is not a project in workspace '{workspace}'; create it first, or leave it out"
            )
        return name

    def _is_open(self, workspace: str) -> bool:
        return self.connection.execute(_OPEN, {"name": workspace}).first() is not None

    def _fields(self) -> Mapping[str, Field]:
        everywhere: dict[str, Field] = {name: self.table.c[name] for name in EVERYWHERE if name in self.table.c}
        return {**everywhere, "entity_type": literal(self.kind.replace("-", "_")), **self.filterable}
