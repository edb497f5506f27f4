"""What may happen to workspaces and their members, and the cleanup that empties a workspace which was deleted.

A deletion only closes the workspace: it is hidden at once, and goes when everything in it has gone. Whatever the
cleanup does it finds anew at each turn, so it may be stopped at any point.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.jobs import JobStatus
from tunesmith.api.workspaces import AddMember, CreateWorkspace, Member, UpdateMember, UpdateWorkspace, Workspace
from tunesmith.control import deployments, jobs
from tunesmith.errors import Conflict, Forbidden, NotFound
from tunesmith.refs import Ref
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database, Tx
from tunesmith.store.workspaces import Closing, HeldJob

log = logging.getLogger(__name__)

SYSTEM = "system"
ANONYMOUS = ""
"""Who asks, as long as there is no authentication."""


class WorkspaceService:
    """Boundaries around everything else, and who may work in them."""

    def __init__(self, database: Database, changed: Callable[[], None]) -> None:
        self.database = database
        self._changed = changed
        """Called after a deletion, so that the cleanup hears of it at once."""
        self.closing: set[str] = set()
        """Names of the workspaces that are being deleted: nothing in them is shown any more."""

    async def load(self) -> None:
        """Learn which workspaces an earlier server was deleting."""
        self.closing.update(each.name for each in await self.database.read(lambda tx: tx.workspaces.closing()))

    async def create(self, asked: CreateWorkspace) -> Workspace:
        """A new workspace; Conflict if the name is taken."""
        return await self.database.write(lambda tx: tx.workspaces.create(asked, ANONYMOUS))

    async def get(self, name: str) -> Workspace:
        """The workspace; NotFound without it."""
        return await self.database.read(lambda tx: tx.workspaces.get(name))

    async def page(self, asked: PageRequest) -> Page[Workspace]:
        """One page of workspaces."""
        return await self.database.read(lambda tx: tx.workspaces.page(asked))

    async def update(self, name: str, asked: UpdateWorkspace) -> Workspace:
        """Another description, null for none; one that is absent stays."""
        if "description" not in asked.model_fields_set:
            return await self.get(name)
        return await self.database.write(lambda tx: tx.workspaces.describe(name, asked.description, ANONYMOUS))

    async def delete(self, name: str) -> None:
        """Hide the workspace; it goes with everything in it. NotFound without it, Forbidden for the platform's own."""
        if name == SYSTEM:
            raise Forbidden(f"Workspace '{SYSTEM}' holds what the platform itself provides and cannot be deleted")
        await self.database.write(lambda tx: tx.workspaces.close(name))
        self.closing.add(name)
        self._changed()

    # -- members ---------------------------------------------------------------------------------------------------

    async def members(self, workspace: str) -> list[Member]:
        """Those of a workspace; NotFound without it."""

        def verb(tx: Tx) -> list[Member]:
            tx.workspaces.get(workspace)
            return tx.members.all(workspace)

        return await self.database.read(verb)

    async def add_member(self, workspace: str, asked: AddMember) -> Member:
        """A new member; Conflict for one who is a member already."""

        def verb(tx: Tx) -> Member:
            tx.workspaces.get(workspace)
            return tx.members.add(workspace, asked.principal, asked.roles, ANONYMOUS)

        return await self.database.write(verb)

    async def put_member(self, workspace: str, principal: str, asked: UpdateMember) -> Member:
        """Other roles, or a new member; Conflict when the last Admin would be none any more."""

        def verb(tx: Tx) -> Member:
            tx.workspaces.get(workspace)
            return tx.members.put(workspace, principal, asked.roles, ANONYMOUS)

        return await self.database.write(verb)

    async def remove_member(self, workspace: str, principal: str) -> None:
        """NotFound for one who is no member, Conflict for the last Admin."""

        def verb(tx: Tx) -> None:
            tx.workspaces.get(workspace)
            tx.members.remove(workspace, principal)

        await self.database.write(verb)


class Cleanup:
    """Takes turns with workspaces that are being deleted."""

    def __init__(
        self, workspaces: WorkspaceService, data_dir: DataDir, stir_jobs: Callable[[], None], stir: Callable[[], None]
    ) -> None:
        self.workspaces = workspaces
        self.database: Database = workspaces.database
        self.data_dir = data_dir
        self._stir_jobs = stir_jobs
        self._stir_deployments = stir

    async def all(self) -> list[Closing]:
        """The workspaces to take a turn with."""
        return await self.database.read(lambda tx: tx.workspaces.closing())

    async def turn(self, closing: Closing) -> bool:
        """End what runs in the workspace, forget what has ended, then all the rest; whether something moved."""
        deployed = await self.database.read(lambda tx: tx.workspaces.deployments_on(closing.name))
        held = await self.database.read(lambda tx: tx.workspaces.jobs_in(closing.name))
        if deployed or held:
            ended = [await self._end_deployment(ref) for ref in deployed]
            return any([*ended, *[await self._end_job(job) for job in held]])
        if await self.database.write(lambda tx: tx.workspaces.sweep(closing)):
            self.workspaces.closing.discard(closing.name)
            log.info("workspace %s is deleted with everything in it", closing.name)
        return True

    async def _end_deployment(self, ref: Ref) -> bool:
        """Ask for its end; the reconciler forgets it when its process is gone."""
        try:
            moved = await self.database.write(deployments.delete, ref)
        except NotFound:
            return True
        if moved:
            self._stir_deployments()
        return moved

    async def _end_job(self, job: HeldJob) -> bool:
        """Cancel it while it lives; with its processes gone, its directory goes, then its row."""
        if await self.database.read(lambda tx: tx.platform_steps.kept(job.id)) and job.status.final:
            return False  # a worker said that its job is over, and is on its way out
        if job.status.final:
            await asyncio.to_thread(_remove, self.data_dir, job.id)
            await self.database.write(_forget, job)
            return True
        if job.status == JobStatus.CANCELLING:
            return False
        try:
            await self.database.write(jobs.cancel, job.ref)
        except Conflict:  # a platform job that is pausing is cancelled once it is paused
            return False
        self._stir_jobs()
        return True


def _remove(data_dir: DataDir, job_id: str) -> None:
    run = data_dir.run(job_id)
    if run.exists():
        shutil.rmtree(run)


def _forget(tx: Tx, job: HeldJob) -> None:
    """One transaction: the job with its steps and metrics, and whatever device it may still hold."""
    tx.leases.release("job", job.id)
    tx.jobs.delete(job.ref.workspace, job.ref.name)
