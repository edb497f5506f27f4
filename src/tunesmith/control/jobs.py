"""What may happen to jobs once they are submitted: retrieve, list, cancel, pause, resume, delete, read the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from typing import TypeVar, cast

from tunesmith.api.base import JsonObject, Page, PageRequest
from tunesmith.api.jobs import CustomizationJob, Job, JobState, JobStatus, LogPage, LogRequest
from tunesmith.control import logs, platform_jobs, scheduler
from tunesmith.control.attempts import SERVER_STOPPED, WITH_PROCESS, go_on
from tunesmith.control.devices import Devices
from tunesmith.errors import Conflict
from tunesmith.refs import Ref
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database, Tx
from tunesmith.store.jobs import Phase

WITHOUT_PROCESS = (Phase.WAITING, Phase.QUEUED, Phase.PAUSED)
T = TypeVar("T")
Verb = TypeVar("Verb", bound=Callable[..., None])
Shown = TypeVar("Shown", Job, JobState, CustomizationJob)

ASKED_FOR = "asked for"


class JobService:
    """Jobs of all kinds, once they are there."""

    def __init__(self, database: Database, data_dir: DataDir, devices: Devices, changed: Callable[[], None]) -> None:
        self.database = database
        self.data_dir = data_dir
        self.devices = devices
        self._changed = changed
        """Called after a change, so that the loops hear of it at once."""

    async def get(self, workspace: str, name: str) -> Job:
        """The job as the jobs service shows it; NotFound without it."""
        job = await self.database.read(lambda tx: tx.jobs.get(workspace, name))
        return await self._placed(job)

    async def get_customization(self, workspace: str, name: str, backend: str | None = None) -> CustomizationJob:
        """The job as the route of its backend shows it, or (None) the shorthand if it is in that; NotFound without."""
        job = await self.database.read(lambda tx: tx.jobs.get_customization(workspace, name, backend))
        return await self._placed(job)

    async def state(self, workspace: str, name: str, *, series: bool = True) -> JobState:
        """Status, steps and tasks, with or without the series; NotFound without the job."""
        state = await self.database.read(lambda tx: tx.jobs.state(workspace, name, series=series))
        return await self._placed(state)

    async def series(self, workspace: str, name: str) -> dict[str, list[JsonObject]]:
        """Every point of every metric; NotFound without the job."""
        return await self.database.read(lambda tx: tx.jobs.series(workspace, name))

    async def page(self, workspace: str, asked: PageRequest) -> Page[Job]:
        """One page of a workspace's jobs."""
        return await self._list(lambda tx: tx.jobs.page(workspace, asked), asked)

    async def page_customization(
        self, workspace: str, asked: PageRequest, backend: str | None = None
    ) -> Page[CustomizationJob]:
        """One page of a workspace's jobs of one backend, or (None) of all of them."""
        return await self._list(lambda tx: tx.jobs.page_customization(workspace, asked, backend), asked)

    async def cancel(self, workspace: str, name: str) -> None:
        """Ask for the end: at once where no process runs, else at the next step. A finished job stays as it is."""
        await self._change(cancel, Ref(workspace, name))

    async def pause(self, workspace: str, name: str) -> None:
        """Ask for a checkpoint and a rest: at once where no process runs, else at the next step."""
        await self._change(pause, Ref(workspace, name))

    async def resume(self, workspace: str, name: str) -> None:
        """Back into the queue; it goes on from its checkpoint. Conflict while it is still pausing."""
        await self._change(resume, Ref(workspace, name))

    async def delete(self, workspace: str, name: str) -> None:
        """Take the job out: it is gone at once, what it left on the machine as soon as its processes are."""
        await self._change(delete, Ref(workspace, name))

    async def logs(self, workspace: str, name: str, asked: LogRequest) -> LogPage:
        """Some lines of what the job's processes said; NotFound without the job."""
        job = await self.database.read(logs.logged, Ref(workspace, name))
        return await asyncio.to_thread(logs.page, self.data_dir.run(job.id), job, asked)

    async def pause_all(self) -> int:
        """The server goes: everything that trains leaves a checkpoint and rests; how many that are."""
        paused = await self.database.write(pause_all)
        self._changed()
        return paused

    async def resume_stopped(self) -> None:
        """What an earlier server paused because it was stopped goes on."""
        if await self.database.write(resume_stopped):
            self._changed()

    async def _change(self, verb: Callable[[Tx, Ref], None], ref: Ref) -> None:
        await self.database.write(verb, ref)
        self._changed()

    async def _list(self, verb: Callable[[Tx], Page[T]], asked: PageRequest) -> Page[T]:
        """A filter may have to look at every row: beside the event loop, then."""
        if asked.filter is None:
            return await self.database.read(verb)
        return await self.database.search(verb)

    async def _placed(self, job: Shown) -> Shown:
        """With its place in the queue and the reason why it waits, if it waits."""
        if job.status_details.get("phase") not in (Phase.WAITING, Phase.QUEUED):
            return job
        place = await self.database.read(scheduler.place, self.devices.names, job.id)
        return job.model_copy(update={"status_details": {**job.status_details, "queue": place}}) if place else job


def or_platform(platform_verb: Callable[[Tx, Ref], None]) -> Callable[[Verb], Verb]:
    """Hands platform jobs to `platform_verb`; the verb below is for customization jobs."""

    def choose(verb: Verb) -> Verb:
        @wraps(verb)
        def either(tx: Tx, ref: Ref, *rest: str) -> None:
            if tx.jobs.is_platform(ref):
                platform_verb(tx, ref)
            else:
                verb(tx, ref, *rest)

        return cast("Verb", either)

    return choose


@or_platform(platform_jobs.cancel)
def cancel(tx: Tx, ref: Ref) -> None:
    """One transaction: done at once where no process runs, else `cancelling` until it is gone."""
    job = tx.jobs.stored(ref)
    if job.status.final or job.status == JobStatus.CANCELLING:
        return
    if job.phase in WITHOUT_PROCESS:
        tx.jobs.move(job.id, Phase.DONE, JobStatus.CANCELLED, allowed_from=WITHOUT_PROCESS)
        tx.jobs.steps.move_open(job.id, JobStatus.CANCELLED)
        tx.jobs.merge_details(job.id, None, {"phase": JobStatus.CANCELLED})
    else:
        tx.jobs.move(job.id, job.phase, JobStatus.CANCELLING, allowed_from=WITH_PROCESS)


@or_platform(platform_jobs.pause)
def pause(tx: Tx, ref: Ref, why: str = ASKED_FOR) -> None:
    """One transaction: paused at once where no process runs, else `pausing` until it has left a checkpoint."""
    job = tx.jobs.stored(ref)
    if job.status.final:
        return
    if job.status in (JobStatus.PAUSING, JobStatus.PAUSED):
        if why == ASKED_FOR:  # stays so over a start of the server, whatever it was at first
            tx.jobs.merge_details(job.id, None, {"paused_because": why})
        return
    if job.status == JobStatus.CANCELLING:
        raise Conflict(f"Cannot pause job '{ref.name}' from its current state: it is being cancelled.")
    if job.phase in WITHOUT_PROCESS:
        tx.jobs.move(job.id, Phase.PAUSED, JobStatus.PAUSED, allowed_from=WITHOUT_PROCESS)
        tx.jobs.steps.move_open(job.id, JobStatus.PAUSED)
        tx.jobs.merge_details(job.id, None, {"phase": "paused"})
    else:
        tx.jobs.move(job.id, job.phase, JobStatus.PAUSING, allowed_from=WITH_PROCESS)
    tx.jobs.merge_details(job.id, None, {"paused_because": why})


@or_platform(platform_jobs.resume)
def resume(tx: Tx, ref: Ref) -> None:
    """One transaction: a paused job goes back into the queue, where its preparation had come to."""
    job = tx.jobs.stored(ref)
    if job.status == JobStatus.PAUSING:
        raise Conflict(f"Job '{ref.name}' is still pausing; resume it when it is paused.")
    if job.phase != Phase.PAUSED:
        return
    go_on(tx, job)


@or_platform(platform_jobs.delete)
def delete(tx: Tx, ref: Ref) -> None:
    """One transaction: the job is gone, and its name free; the supervisor clears away what runs."""
    tx.jobs.discard(ref)


def pause_all(tx: Tx) -> int:
    """One transaction: whatever trains is asked to rest until the next server comes."""
    found = tx.jobs.active(Phase.TRAINING)
    for job in found:
        if job.status == JobStatus.ACTIVE:
            pause(tx, job.ref, SERVER_STOPPED)
    return len(found)


def resume_stopped(tx: Tx) -> int:
    """One transaction: what was paused for that reason goes on; how many did."""
    found = [
        job for job in tx.jobs.active(Phase.PAUSED) if tx.jobs.details(job.id).get("paused_because") == SERVER_STOPPED
    ]
    for job in found:
        resume(tx, job.ref)
    return len(found)
