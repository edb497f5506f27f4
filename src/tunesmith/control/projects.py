"""What may happen to projects: they label things of a workspace, and hold nothing themselves."""

from __future__ import annotations

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.projects import CreateProject, Project, UpdateProject
from tunesmith.store.database import Database


class ProjectService:
    """Labels for things that belong together."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def create(self, workspace: str, asked: CreateProject) -> Project:
        """A new project; Conflict if the name is taken, Invalid without the workspace."""
        return await self.database.write(lambda tx: tx.projects.create(workspace, asked))

    async def get(self, workspace: str, name: str) -> Project:
        """The project; NotFound without it."""
        return await self.database.read(lambda tx: tx.projects.get(workspace, name))

    async def page(self, workspace: str, asked: PageRequest) -> Page[Project]:
        """One page of a workspace's projects."""
        return await self.database.read(lambda tx: tx.projects.page(workspace, asked))

    async def update(self, workspace: str, name: str, asked: UpdateProject) -> Project:
        """Another description, null for none; one that is absent stays."""
        if "description" not in asked.model_fields_set:
            return await self.get(workspace, name)
        return await self.database.write(lambda tx: tx.projects.describe(workspace, name, asked.description))

    async def delete(self, workspace: str, name: str) -> None:
        """Forget the project; what belonged to it stays and belongs to none."""
        await self.database.write(lambda tx: tx.projects.dissolve(workspace, name))
