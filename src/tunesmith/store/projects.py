"""Projects in the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import RowMapping, update

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.projects import CreateProject, Project
from tunesmith.refs import check_name
from tunesmith.store.rows import Named
from tunesmith.store.tables import metadata, projects

LABELLED = tuple(table for table in metadata.sorted_tables if "project" in table.c)
"""Whatever can belong to a project."""


class Projects(Named):
    """Labels for things of a workspace that belong together."""

    table = projects
    kind = "project"
    missing = "Project '{name}' not found in workspace '{workspace}'"
    twin = "Project '{name}' already exists in workspace '{workspace}'."

    def create(self, workspace: str, asked: CreateProject) -> Project:
        """A new project; Conflict if the name is taken."""
        return _project(self.insert(workspace, check_name(asked.name), description=asked.description))

    def get(self, workspace: str, name: str) -> Project:
        """The project; NotFound without it."""
        return _project(self.row(workspace, name))

    def page(self, workspace: str, asked: PageRequest) -> Page[Project]:
        """One page of a workspace's projects."""
        return self.page_of(workspace, asked, _read)

    def describe(self, workspace: str, name: str, description: str | None) -> Project:
        """The project with another description."""
        return _project(self.change(self.row(workspace, name), description=description))

    def dissolve(self, workspace: str, name: str) -> None:
        """Forget the project; what belonged to it stays and belongs to none."""
        self.delete(workspace, name)
        for table in LABELLED:
            held = (table.c.workspace == workspace, table.c.project == name)
            self.connection.execute(update(table).where(*held).values(project=None))


def _project(row: RowMapping) -> Project:
    return Project.model_validate(dict(row))


def _read(rows: Sequence[RowMapping]) -> list[Project]:
    return [_project(row) for row in rows]
