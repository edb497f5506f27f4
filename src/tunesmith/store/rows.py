"""What the repositories of named things share: one row by name, one page in order, an insert that meets a twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, func, insert, select
from sqlalchemy.exc import IntegrityError

from tunesmith.api.base import PageRequest
from tunesmith.errors import BadRequest, Conflict, Invalid, NotFound
from tunesmith.store.ids import new_id, now
from tunesmith.store.tables import workspaces

ALL_WORKSPACES = "-"
SORTABLE = ("created_at", "updated_at", "name")


class Named:
    """Rows of one table, addressed by workspace and name."""

    table: Table
    kind: str
    """First part of an id: `fileset` in `fileset-4fB...`."""
    missing: str
    """What a 404 says; `{workspace}` and `{name}` are filled in."""
    twin: str
    """What a 409 says; `{workspace}` and `{name}` are filled in."""

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
        where = and_(self.table.c.workspace == workspace, self.table.c.name == name)
        return self.connection.execute(select(self.table).where(where)).mappings().one_or_none()

    def insert(self, workspace: str, name: str, **values: Any) -> RowMapping:
        """A new row with an id and two timestamps; Conflict if the name is taken, Invalid without such a workspace."""
        at = now()
        row = {"id": new_id(self.kind), "workspace": workspace, "name": name, "created_at": at, "updated_at": at}
        try:
            self.connection.execute(insert(self.table).values({**row, **values}))
        except IntegrityError as error:
            if "FOREIGN KEY" in str(error.orig):
                raise Invalid(f"Workspace '{workspace}' does not exist. Please create the workspace first.") from None
            raise Conflict(self.twin.format(workspace=workspace, name=name)) from None
        return self.row(workspace, name)

    def page_rows(
        self, workspace: str, asked: PageRequest, *where: ColumnElement[bool]
    ) -> tuple[Sequence[RowMapping], int]:
        """The rows of one page of a workspace (`-` = all of them), and how many there are in all."""
        if workspace != ALL_WORKSPACES:
            where = (self.table.c.workspace == workspace, *where)
        total = self.connection.execute(select(func.count()).select_from(self.table).where(*where)).scalar_one()
        if not total and workspace != ALL_WORKSPACES:
            self._must_exist(workspace)
        name, descending = asked.sort.removeprefix("-"), asked.sort.startswith("-")
        if name not in SORTABLE:
            raise BadRequest(f"sort: '{asked.sort}' is not one of {', '.join(SORTABLE)}, each with or without '-'")
        column = self.table.c[name]
        order = (column.desc(), self.table.c.id.desc()) if descending else (column.asc(), self.table.c.id.asc())
        offset = (asked.page - 1) * asked.page_size
        rows = select(self.table).where(*where).order_by(*order).limit(asked.page_size).offset(offset)
        return self.connection.execute(rows).mappings().all(), total

    def _must_exist(self, workspace: str) -> None:
        found = self.connection.execute(select(workspaces.c.id).where(workspaces.c.name == workspace)).first()
        if found is None:
            raise NotFound(f"Workspace '{workspace}' not found")
