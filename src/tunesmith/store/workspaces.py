"""Workspaces in the database."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from tunesmith.api.base import Page, PageRequest, paged
from tunesmith.api.workspaces import Workspace
from tunesmith.errors import NotFound
from tunesmith.store.tables import workspaces


class Workspaces:
    """Boundaries around everything else; two are seeded."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def get(self, name: str) -> Workspace:
        """The workspace; NotFound without it."""
        row = self.connection.execute(select(workspaces).where(workspaces.c.name == name)).mappings().one_or_none()
        if row is None:
            raise NotFound(f"Workspace '{name}' not found")
        return Workspace.model_validate(dict(row))

    def page(self, asked: PageRequest) -> Page[Workspace]:
        """One page, by name."""
        total = self.connection.execute(select(func.count()).select_from(workspaces)).scalar_one()
        query = select(workspaces).order_by(workspaces.c.name)
        rows = self.connection.execute(query.limit(asked.page_size).offset((asked.page - 1) * asked.page_size))
        return paged([Workspace.model_validate(dict(row)) for row in rows.mappings()], total, asked)
