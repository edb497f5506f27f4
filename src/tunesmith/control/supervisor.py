"""Follows the processes of customization jobs: starts what was claimed, applies events, gives each job its one end.

Level-triggered: a turn looks at what is on disk and in the database, so it does not matter which server started a
process, or how often a turn was cut short. Events and the offset behind them are one transaction; so are a result's
fileset, its adapter and the job's end (`registration.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.api.jobs import DOWNLOAD, TRAINING, JobStatus
from tunesmith.control import progress
from tunesmith.control.attempts import WITH_PROCESS, rest, try_again
from tunesmith.control.devices import Devices
from tunesmith.control.fetching import ARRIVED, Fetching, here
from tunesmith.control.launch import local
from tunesmith.control.launch.local import Exit, Identity
from tunesmith.control.registration import end, register
from tunesmith.control.runs import GRACE_SECONDS, LAUNCHED, Runs, recorded
from tunesmith.control.secrets import Vault
from tunesmith.errors import EngineError, TunesmithError
from tunesmith.handoff.crash import crash_at
from tunesmith.handoff.events import (
    ARTIFACT,
    LESS_MEMORY,
    Event,
    Failed,
    Finished,
    PreparedRows,
    Stopped,
    events_path,
    read_events,
)
from tunesmith.refs import Ref
from tunesmith.store.blobs import Blobs
from tunesmith.store.database import Database, Tx
from tunesmith.store.jobs import Active, Discard, Phase, StoredJob

STEP_OF = {Phase.PREPARING: DOWNLOAD, Phase.TRAINING: TRAINING}
FEW = 20
"""Jobs that are followed as closely as the pauses below say."""
LOOK_FOR_LIFE_SECONDS = 1.0
"""Between two looks whether a process that says nothing is still there. Its end is seen at once by its exit file."""
LISTEN_SECONDS = 1.0
"""Between two portions of events of one job. Its first words and its last ones are heard at once."""
SILENCE_SECONDS = 3600.0
"""Without an event until a trainer is taken for hung: counted from the last one, on a clock that sleeps with the
machine."""


def slowness(count: int) -> float:
    """How much longer pauses are while so many things are followed: many cost no more than a few do."""
    return max(1.0, count / FEW)


@dataclass(slots=True)
class _Heard:
    """What this server remembers of a process that it follows."""

    spoke_at: float
    looked_at: float = 0.0
    applied_at: float = 0.0
    rung: str = ""
    """The wish that its doorbell was rung for."""
    silenced: bool = False


class Supervisor:
    """Takes turns with the jobs that have, or should have, a process, and with what deleted jobs left."""

    def __init__(
        self, database: Database, runs: Runs, blobs: Blobs, fetching: Fetching, vault: Vault, devices: Devices
    ) -> None:
        self.database = database
        self.runs = runs
        self.blobs = blobs
        self.fetching = fetching
        self.vault = vault
        self.devices = devices
        self.silence_seconds = SILENCE_SECONDS
        self.stopping = False
        """Whether this server stops: then what it has put to rest waits for the next one."""
        self._heard: dict[str, _Heard] = {}
        self._slowness = 1.0

    async def active(self) -> list[Active | Discard]:
        """What to take a turn with."""

        def found(tx: Tx) -> list[Active | Discard]:
            return [*tx.jobs.active(*WITH_PROCESS), *(each for each in tx.jobs.discarded() if not each.steps)]

        active = await self.database.read(found)
        self._slowness = slowness(len(active))
        return active

    async def turn(self, job: Active | Discard) -> bool:
        """Do for one job what can be done now; whether something moved."""
        if isinstance(job, Discard):
            return await self._clear_away(job)
        identity = self.runs.found(job)
        if identity is None:
            return await self._begin(job)
        if job.keeper is None:
            await self.database.write(lambda tx: tx.jobs.set(job.id, keeper=recorded(identity)))
        heard = self._heard.setdefault(job.id, _Heard(time.monotonic()))
        await self._pass_on_wishes(job, identity, heard)
        exit_ = await self._ended(job, identity, heard)  # before reading: then nothing more can come
        events, offset = await self._news(job, heard) if exit_ is None else await self._all_news(job)
        if events:
            heard.spoke_at = heard.applied_at = time.monotonic()
            await self.database.write(apply, job.id, job.events_offset, events, offset)
            crash_at("events-after-commit")
            return True
        if exit_ is None:
            return await self._judge_silence(job, identity, heard)
        await self._conclude(job, exit_, heard)
        self._heard.pop(job.id, None)
        return True

    # -- beginning -------------------------------------------------------------------------------------------------

    async def _begin(self, active: Active) -> bool:
        """There is no process though there should be one."""
        job = await self.database.read(lambda tx: tx.jobs.by_id(active.id))
        if job.phase != active.phase:
            return True
        if job.status == JobStatus.CANCELLING:
            await self.fetching.drop(job.id)
            await self.database.write(end, job.id, JobStatus.CANCELLED)
            return True
        if job.status == JobStatus.PAUSING:
            await self.fetching.drop(job.id)
            await self.database.write(rest, job.id, self.stopping)
            return True
        if job.phase == Phase.PREPARING and not all(here(snapshot) for snapshot in job.snapshots.values()):
            return await self._fetch(job)
        return await self.runs.warm(job) and await self._start(job)

    async def _fetch(self, job: StoredJob) -> bool:
        """Some of its inputs are elsewhere: look how far they are; once here, the job reads exactly those bytes."""
        try:
            inputs = await self.fetching.look(job.id, job.snapshots)
        except (TunesmithError, OSError) as error:
            await self.database.write(end, job.id, JobStatus.ERROR, failure("DownloadError", str(error)))
            return True
        if inputs is None:
            if news := self.fetching.news(job.id):
                await self.database.write(lambda tx: tx.jobs.merge_details(job.id, DOWNLOAD, news))
            return False
        stored = {name: snapshot.as_json() for name, snapshot in inputs.items()}
        await self.database.write(fetched, job.id, stored)
        return True

    async def _start(self, job: StoredJob) -> bool:
        crash_at("start-before-launch")
        try:
            environment = await self._environment(job)
            identity: Identity = await self.runs.start(job, environment)
        except (OSError, TunesmithError) as error:
            kind = "GenericTrainingError" if isinstance(error, EngineError) else "TrainingEnvironmentError"
            await self.database.write(end, job.id, JobStatus.ERROR, failure(kind, str(error)))
            return True
        crash_at("start-before-record")
        await self.database.write(lambda tx: tx.jobs.set(job.id, keeper=recorded(identity)))
        return True

    async def _environment(self, job: StoredJob) -> dict[str, str]:
        """Its devices and its secrets: both are a trainer's alone."""
        if job.phase != Phase.TRAINING:
            return {"CUDA_VISIBLE_DEVICES": ""}
        taken = await self.database.read(lambda tx: tx.leases.of(job.id))
        secrets = {variable: await self.vault.value(Ref.unchecked(ref)) for variable, ref in job.secrets}
        return {**self.devices.visible(taken), **secrets}

    # -- following -------------------------------------------------------------------------------------------------

    async def _pass_on_wishes(self, job: Active, identity: Identity, heard: _Heard) -> None:
        """Ring once for each wish. A data process has nothing to save, so a pause lets it finish."""
        if job.status == JobStatus.CANCELLING and heard.rung != "cancel":
            await asyncio.to_thread(self.runs.wish, job, identity, "cancel")
            heard.rung = "cancel"
            crash_at("cancel-after-wish")
        elif job.status == JobStatus.PAUSING and job.phase == Phase.TRAINING and not heard.rung:
            await asyncio.to_thread(self.runs.wish, job, identity, "pause")
            heard.rung = "pause"
            crash_at("pause-after-wish")

    async def _ended(self, job: Active, identity: Identity, heard: _Heard) -> Exit | None:
        """How its process ended; None while it runs, as far as is known."""
        now = time.monotonic()
        looked = now - heard.looked_at < LOOK_FOR_LIFE_SECONDS * self._slowness
        if looked and not local.has_exited(self.runs.directory(job), LAUNCHED[job.phase], job.attempt):
            return None
        heard.looked_at = now
        return await asyncio.to_thread(self.runs.ended, job, identity)

    async def _news(self, job: Active, heard: _Heard) -> tuple[Sequence[Event], int]:
        """Events past the offset, now and then: one that talks much is heard in larger portions."""
        if time.monotonic() - heard.applied_at < LISTEN_SECONDS * self._slowness:
            return (), job.events_offset
        return await self._all_news(job)

    async def _all_news(self, job: Active) -> tuple[Sequence[Event], int]:
        """Events past the offset. A file that has not grown is not opened."""
        path = events_path(self.runs.directory(job), job.attempt)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size <= job.events_offset:
            return (), job.events_offset
        return await asyncio.to_thread(read_events, path, job.events_offset)

    async def _judge_silence(self, job: Active, identity: Identity, heard: _Heard) -> bool:
        """A trainer that has said nothing for too long is ended; what follows is as if it had died."""
        if job.phase != Phase.TRAINING or time.monotonic() - heard.spoke_at < self.silence_seconds:
            return False
        heard.silenced = True
        await local.stop(identity, 0)
        return True

    async def _conclude(self, job: Active, exit_: Exit, heard: _Heard) -> None:
        """The process is gone and all it said is applied: move the job on, or end it."""
        ending = job.ending or {}
        kind = ending.get("kind")
        if kind == "failed":
            error = failure(ending["type"], ending["message"], ending["detail"])
            await self.database.write(end, job.id, JobStatus.ERROR, error)
        elif kind == "prepared" and job.phase == Phase.PREPARING:
            await self.database.write(queue, job.id)
        elif kind == "finished" and job.phase == Phase.TRAINING:
            await self._register(job)
        elif job.status == JobStatus.CANCELLING or (kind == "stopped" and ending["wish"] == "cancel"):
            await self.database.write(end, job.id, JobStatus.CANCELLED)
        elif kind == "stopped":
            await self.database.write(rest, job.id, self.stopping)
        else:
            await self._conclude_without_a_word(job, exit_, heard)

    async def _conclude_without_a_word(self, job: Active, exit_: Exit, heard: _Heard) -> None:
        """It died. Told to pause, it rests; where it had come further than it began, it begins again from there."""
        how = f"it said nothing for {self.silence_seconds:g} s and was ended" if heard.silenced else exit_.how()
        without_a_word = job.phase == Phase.TRAINING and exit_.code is None and not exit_.out_of_memory
        if without_a_word and job.status == JobStatus.PAUSING:
            await self.database.write(rest, job.id, self.stopping, how)
            return
        if without_a_word and await self.database.write(try_again, job.id, how):
            return
        what = "The data process" if job.phase == Phase.PREPARING else "The trainer"
        words = await asyncio.to_thread(self.runs.last_words, job)
        said = f"Its last words:\n{words}" if words else "It printed nothing."
        kind = "TrainingTimeoutError" if heard.silenced else "GenericTrainingError"
        if exit_.out_of_memory:
            said = f"{OUT_OF_MEMORY}\n{said}"
        error = failure(kind, f"{what} ended without a result: {how}.", said)
        await self.database.write(end, job.id, JobStatus.ERROR, error)

    async def _register(self, active: Active) -> None:
        """Make the artifact a fileset and an adapter; a name taken meanwhile ends the job, the artifact stays."""
        job = await self.database.read(lambda tx: tx.jobs.by_id(active.id))
        finished = Finished.model_validate(active.ending)
        try:
            with self.blobs.hold(file.digest for file in finished.files):
                crash_at("register-before-adopt")
                await asyncio.to_thread(self._adopt, job, finished)
                crash_at("register-after-adopt")
                await self.database.write(register, job.id, finished)
                crash_at("register-after-commit")
        except (TunesmithError, OSError) as error:
            artifact = self.runs.directory(job) / ARTIFACT
            said = failure("CheckpointError", f"The result could not be registered: {error}", f"It lies in {artifact}.")
            await self.database.write(end, job.id, JobStatus.ERROR, said)

    def _adopt(self, job: StoredJob, finished: Finished) -> None:
        for file in finished.files:
            self.blobs.adopt(self.runs.directory(job) / ARTIFACT / file.path, file.digest)

    # -- clearing away ---------------------------------------------------------------------------------------------

    async def _clear_away(self, gone: Discard) -> bool:
        """End what a deleted job left running, then delete its files and give its devices back."""
        await self.fetching.drop(gone.id)
        identity = self.runs.found(gone)
        if identity is not None and gone.phase in WITH_PROCESS:
            heard = self._heard.setdefault(gone.id, _Heard(time.monotonic()))
            if heard.rung != "delete":
                heard.rung, heard.spoke_at = "delete", time.monotonic()
                await asyncio.to_thread(self.runs.wish, gone, identity, "cancel")
            if time.monotonic() - heard.spoke_at > GRACE_SECONDS:
                await local.stop(identity, 0)
            if await asyncio.to_thread(self.runs.ended, gone, identity) is None:
                return False
        await asyncio.to_thread(self.runs.remove, gone)
        await self.database.write(forget, gone.id)
        self._heard.pop(gone.id, None)
        return True


OUT_OF_MEMORY = f"The kernel ended it for want of memory. {LESS_MEMORY}."


def apply(tx: Tx, job_id: str, offset: int, events: Sequence[Event], behind: int) -> None:
    """One transaction: the events after `offset`, and the offset behind them. Nothing if they are applied already."""
    job = tx.jobs.followed(job_id)
    if job is None or job.events_offset != offset or job.phase not in STEP_OF:
        return
    changes: dict[str, Any] = {}
    known = tx.jobs.details(job_id)
    ending = job.ending
    for event in events:
        changes.update(progress.details(event, {**known, **changes}))
        if isinstance(event, PreparedRows | Finished | Failed | Stopped):
            ending = event.model_dump(mode="json")
    tx.jobs.steps.merge_details(job_id, STEP_OF[job.phase], changes)
    tx.jobs.metrics.add(job_id, [point for event in events for point in progress.points(event)])
    tx.jobs.set(job_id, events_offset=behind, ending=ending, status_details={**known, **changes})
    crash_at("events-before-commit")


def fetched(tx: Tx, job_id: str, inputs: dict[str, Any]) -> None:
    """One transaction: all of a job's inputs are here; nothing happens when it has ended meanwhile."""
    job = tx.jobs.followed(job_id)
    if job is not None and job.phase == Phase.PREPARING:
        tx.jobs.set(job_id, inputs=inputs)
        tx.jobs.merge_details(job_id, DOWNLOAD, {"phase": Phase.PREPARING, **ARRIVED})


def queue(tx: Tx, job_id: str) -> None:
    """One transaction: the rows are ready, the job waits for a device; it stays active on the wire."""
    job = tx.jobs.followed(job_id)
    if job is None:
        return
    if job.status == JobStatus.CANCELLING:
        end(tx, job_id, JobStatus.CANCELLED)
        return
    tx.jobs.steps.move(job_id, DOWNLOAD, JobStatus.COMPLETED)
    tx.jobs.steps.add(job_id, TRAINING, JobStatus.PENDING)
    if job.status == JobStatus.PAUSING:
        rest(tx, job_id, stopping=False)
        return
    tx.jobs.move(job_id, Phase.QUEUED, JobStatus.ACTIVE, allowed_from=[Phase.PREPARING], keeper=None, ending=None)
    tx.jobs.merge_details(job_id, TRAINING, {"phase": Phase.QUEUED})


def forget(tx: Tx, job_id: str) -> None:
    """One transaction: nothing is left of a deleted job, and its devices are free."""
    tx.leases.release("job", job_id)
    tx.jobs.forget(job_id)


def failure(type_: str, message: str, detail: str = "") -> dict[str, Any]:
    """`error_details` of a job and its step."""
    return {"message": message, "type": type_, "detail": detail}
