"""Projects: labels for things in a workspace that belong together."""

from __future__ import annotations

from tunesmith.api import paths
from tunesmith.api.base import Deleted, Page
from tunesmith.api.projects import CreateProject, Project, UpdateProject
from tunesmith.client import wire
from tunesmith.client.aio.pages import AsyncPages
from tunesmith.client.aio.resource import AsyncResource


class AsyncProjects(AsyncResource):
    """`client.projects`."""

    async def create(
        self, name: str, *, workspace: str | None = None, description: str | None = None, exist_ok: bool = False
    ) -> Project:
        """A new project. With `exist_ok` one of that name is returned as it is, where there is one."""
        there = self._at(paths.PROJECT, name, workspace) if exist_ok else None
        path, name = self._new(paths.PROJECTS, name, workspace)
        body = wire.ask(CreateProject, name=name, description=description)
        return await self._make(Project, path, body, there)

    async def retrieve(self, name: str, *, workspace: str | None = None) -> Project:
        """One project."""
        return await self._transport.get(Project, self._at(paths.PROJECT, name, workspace))

    async def list(
        self,
        *,
        workspace: str | None = None,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> AsyncPages[Project]:
        """The workspace's projects."""
        path = self._in(paths.PROJECTS, workspace)
        return await AsyncPages.begin(self._transport, Page[Project], path, page, page_size, sort, filter)

    async def update(self, name: str, *, workspace: str | None = None, description: str | None = None) -> Project:
        """Change a project; None leaves as it is."""
        body = wire.ask(UpdateProject, description=description)
        return await self._transport.put(Project, self._at(paths.PROJECT, name, workspace), body)

    async def delete(self, name: str, *, workspace: str | None = None) -> Deleted:
        """Remove a project; what it labelled stays, without the label."""
        return await self._transport.delete(self._at(paths.PROJECT, name, workspace), Deleted)
