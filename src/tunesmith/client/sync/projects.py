# Made by scripts/unasync.py from ../aio/projects.py: change that file and run the script again.
"""Projects: labels for things in a workspace that belong together."""

from __future__ import annotations

from tunesmith.api import paths
from tunesmith.api.base import Deleted, Page
from tunesmith.api.projects import CreateProject, Project, UpdateProject
from tunesmith.client import wire
from tunesmith.client.sync.pages import Pages
from tunesmith.client.sync.resource import Resource


class Projects(Resource):
    """`client.projects`."""

    def create(
        self, name: str, *, workspace: str | None = None, description: str | None = None, exist_ok: bool = False
    ) -> Project:
        """A new project. With `exist_ok` one of that name is returned as it is, where there is one."""
        there = self._at(paths.PROJECT, name, workspace) if exist_ok else None
        path, name = self._new(paths.PROJECTS, name, workspace)
        body = wire.ask(CreateProject, name=name, description=description)
        return self._make(Project, path, body, there)

    def retrieve(self, name: str, *, workspace: str | None = None) -> Project:
        """One project."""
        return self._transport.get(Project, self._at(paths.PROJECT, name, workspace))

    def list(
        self,
        *,
        workspace: str | None = None,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> Pages[Project]:
        """The workspace's projects."""
        path = self._in(paths.PROJECTS, workspace)
        return Pages.begin(self._transport, Page[Project], path, page, page_size, sort, filter)

    def update(self, name: str, *, workspace: str | None = None, description: str | None = None) -> Project:
        """Change a project; None leaves as it is."""
        body = wire.ask(UpdateProject, description=description)
        return self._transport.put(Project, self._at(paths.PROJECT, name, workspace), body)

    def delete(self, name: str, *, workspace: str | None = None) -> Deleted:
        """Remove a project; what it labelled stays, without the label."""
        return self._transport.delete(self._at(paths.PROJECT, name, workspace), Deleted)
