"""Workspaces in the database: made, changed, and emptied step by step when they are deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.jobs import JobStatus
from tunesmith.api.workspaces import CreateWorkspace, Workspace
from tunesmith.errors import Conflict, NotFound
from tunesmith.refs import Ref
from tunesmith.store.ids import new_id, now
from tunesmith.store.rows import ALL_WORKSPACES, Named
from tunesmith.store.tables import deployment_configs, deployments, jobs, members, metadata, workspaces

SWEPT_AT_ONCE = 500
"""Rows that one transaction deletes: others wait for it."""

CONTENTS = tuple(
    table for table in reversed(metadata.sorted_tables) if "workspace" in table.c and table not in (members, workspaces)
)
"""The tables of things in workspaces, each before those it refers to. Members go with the workspace itself."""


@dataclass(frozen=True, slots=True)
class Closing:
    """A workspace on its way out."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job that keeps its workspace from going."""

    id: str
    ref: Ref
    status: JobStatus


class Workspaces:
    """Boundaries around everything else; two are there from the start."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def create(self, asked: CreateWorkspace, created_by: str) -> Workspace:
        """A new workspace; Conflict if the name is taken, also by one whose contents are still being deleted."""
        at = now()
        row = {
            "id": new_id("workspace"),
            "name": asked.name,
            "description": asked.description,
            "created_by": created_by,
            "updated_by": created_by,
            "created_at": at,
            "updated_at": at,
        }
        try:
            with self.connection.begin_nested():
                self.connection.execute(insert(workspaces).values(row))
        except IntegrityError:
            closing = any(asked.name == each.name for each in self.closing())
            hint = "; it is being deleted, so its name is free in a moment" if closing else ""
            raise Conflict(f"Workspace '{asked.name}' already exists{hint}") from None
        return self.get(asked.name)

    def get(self, name: str) -> Workspace:
        """The workspace; NotFound without it, and while it is being deleted."""
        query = select(workspaces).where(workspaces.c.name == name, workspaces.c.deleting_at.is_(None))
        row = self.connection.execute(query).mappings().one_or_none()
        if row is None:
            raise NotFound(f"Workspace '{name}' not found")
        return _workspace(row)

    def page(self, asked: PageRequest) -> Page[Workspace]:
        """One page of those that are not being deleted."""
        return _Rows(self.connection).page_of(ALL_WORKSPACES, asked, _read, workspaces.c.deleting_at.is_(None))

    def describe(self, name: str, description: str | None, updated_by: str) -> Workspace:
        """The workspace with another description."""
        workspace = self.get(name)
        values = {"description": description, "updated_by": updated_by, "updated_at": now()}
        self.connection.execute(update(workspaces).where(workspaces.c.id == workspace.id).values(values))
        return self.get(name)

    # -- deletion --------------------------------------------------------------------------------------------------

    def close(self, name: str) -> None:
        """Hide the workspace and put it on its way out; NotFound without it."""
        workspace = self.get(name)
        self.connection.execute(update(workspaces).where(workspaces.c.id == workspace.id).values(deleting_at=now()))

    def closing(self) -> list[Closing]:
        """Those on their way out, oldest first."""
        query = select(workspaces.c.id, workspaces.c.name).where(workspaces.c.deleting_at.is_not(None))
        return [Closing(*row) for row in self.connection.execute(query.order_by(workspaces.c.deleting_at))]

    def deployments_on(self, name: str) -> list[Ref]:
        """Deployments in the workspace, and those elsewhere that stand on one of its configs."""
        configs = select(deployment_configs.c.id).where(deployment_configs.c.workspace == name)
        there = or_(deployments.c.workspace == name, deployments.c.config_id.in_(configs))
        query = select(deployments.c.workspace, deployments.c.name).where(there)
        return [Ref(*row) for row in self.connection.execute(query)]

    def jobs_in(self, name: str) -> list[HeldJob]:
        """The workspace's jobs, oldest first; at most `SWEPT_AT_ONCE`."""
        query = select(jobs.c.id, jobs.c.name, jobs.c.status).where(jobs.c.workspace == name)
        rows = self.connection.execute(query.order_by(jobs.c.created_at).limit(SWEPT_AT_ONCE))
        return [HeldJob(row.id, Ref(name, row.name), JobStatus(row.status)) for row in rows]

    def sweep(self, closing: Closing) -> bool:
        """Delete some of what is left, or the emptied workspace itself; whether the workspace is gone.

        Jobs and deployments must be gone before: they have processes and directories.
        """
        for table in CONTENTS:
            some = select(table.c.id).where(table.c.workspace == closing.name).limit(SWEPT_AT_ONCE)
            if self.connection.execute(delete(table).where(table.c.id.in_(some))).rowcount:
                return False
        self.connection.execute(delete(workspaces).where(workspaces.c.id == closing.id))
        return True


class _Rows(Named):
    table = workspaces
    kind = "workspace"
    filterable = {"created_by": workspaces.c.created_by, "updated_by": workspaces.c.updated_by}


def _workspace(row: RowMapping) -> Workspace:
    return Workspace.model_validate(dict(row))


def _read(rows: Sequence[RowMapping]) -> list[Workspace]:
    return [_workspace(row) for row in rows]
