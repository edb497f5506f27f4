"""What may happen to workspaces: retrieve and list; two are seeded."""

from __future__ import annotations

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.workspaces import Workspace
from tunesmith.store.database import Database


class WorkspaceService:
    """Boundaries around everything else."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def get(self, name: str) -> Workspace:
        """The workspace; NotFound without it."""
        return await self.database.read(lambda tx: tx.workspaces.get(name))

    async def page(self, asked: PageRequest) -> Page[Workspace]:
        """One page of workspaces, by name."""
        return await self.database.read(lambda tx: tx.workspaces.page(asked))
