# Made by scripts/unasync.py from ../aio/workspaces.py: change that file and run the script again.
"""Workspaces: the boundaries around everything else."""

from __future__ import annotations

from tunesmith.api import paths
from tunesmith.api.base import Page
from tunesmith.api.workspaces import Workspace
from tunesmith.client.sync.pages import Pages
from tunesmith.client.sync.resource import Resource
from tunesmith.errors import Invalid


class Workspaces(Resource):
    """`client.workspaces`."""

    def retrieve(self, name: str) -> Workspace:
        """One workspace."""
        if not name or "/" in name:
            raise Invalid(f"name: '{name}' is not the name of a workspace")
        return self._transport.get(Workspace, paths.at(paths.WORKSPACE, name=name))

    def list(
        self, *, page: int | None = None, page_size: int | None = None, sort: str | None = None
    ) -> Pages[Workspace]:
        """All workspaces."""
        return Pages.begin(self._transport, Page[Workspace], paths.WORKSPACES, page, page_size, sort)
