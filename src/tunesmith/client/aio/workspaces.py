"""Workspaces: the boundaries around everything else."""

from __future__ import annotations

from tunesmith.api import paths
from tunesmith.api.base import Page
from tunesmith.api.workspaces import Workspace
from tunesmith.client.aio.pages import AsyncPages
from tunesmith.client.aio.resource import AsyncResource
from tunesmith.errors import Invalid


class AsyncWorkspaces(AsyncResource):
    """`client.workspaces`."""

    async def retrieve(self, name: str) -> Workspace:
        """One workspace."""
        if not name or "/" in name:
            raise Invalid(f"name: '{name}' is not the name of a workspace")
        return await self._transport.get(Workspace, paths.at(paths.WORKSPACE, name=name))

    async def list(
        self, *, page: int | None = None, page_size: int | None = None, sort: str | None = None
    ) -> AsyncPages[Workspace]:
        """All workspaces."""
        return await AsyncPages.begin(self._transport, Page[Workspace], paths.WORKSPACES, page, page_size, sort)
