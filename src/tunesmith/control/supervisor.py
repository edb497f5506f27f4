"""Follows the processes of jobs: starts what was claimed, applies events, and gives each job its one end.

Level-triggered: a turn looks at what is on disk and in the database, so it does not matter which server started a
process, or how often a turn was cut short. Events and the offset behind them are one transaction; so are a result's
fileset, its adapter and the job's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tunesmith.api.filesets import CreateFileset
from tunesmith.api.jobs import DOWNLOAD, REGISTRATION, TRAINING, UPLOAD, JobStatus
from tunesmith.control.fetching import ARRIVED, Fetching, here
from tunesmith.control.jobs import WITH_PROCESS
from tunesmith.control.launch.local import Exit, Identity
from tunesmith.control.runs import Runs, recorded
from tunesmith.errors import EngineError, TunesmithError
from tunesmith.handoff.events import (
    CheckpointSaved,
    Event,
    Failed,
    Finished,
    PreparedRows,
    Preparing,
    Progress,
    Started,
    Stopped,
    Validated,
    Warned,
    events_path,
    read_events,
)
from tunesmith.store.blobs import Blobs
from tunesmith.store.database import Database, Tx
from tunesmith.store.jobs import Phase, StoredJob, finite

STEP_OF = {Phase.PREPARING: DOWNLOAD, Phase.TRAINING: TRAINING}


class Supervisor:
    """Takes turns with the jobs that have, or should have, a process."""

    def __init__(self, database: Database, runs: Runs, blobs: Blobs, fetching: Fetching) -> None:
        self.database = database
        self.runs = runs
        self.blobs = blobs
        self.fetching = fetching
        self._rung: set[str] = set()
        """Jobs whose doorbell this server has rung."""

    async def active(self) -> list[StoredJob]:
        """The jobs to take a turn with."""
        return await self.database.read(lambda tx: tx.jobs.in_phase(*WITH_PROCESS))

    async def turn(self, job: StoredJob) -> bool:
        """Do for one job what can be done now; whether something moved."""
        identity = self.runs.found(job)
        if identity is None:
            if job.status == JobStatus.CANCELLING:
                await self.fetching.drop(job.id)
                await self.database.write(end, job.id, JobStatus.CANCELLED)
                return True
            if job.phase == Phase.PREPARING and not all(here(snapshot) for snapshot in job.snapshots.values()):
                return await self._fetch(job)
            return await self._start(job)
        if job.keeper is None:
            await self.database.write(lambda tx: tx.jobs.set(job.id, keeper=recorded(identity)))
        if job.status == JobStatus.CANCELLING and job.id not in self._rung:
            self.runs.ask_to_stop(job, identity)
            self._rung.add(job.id)
        exit_ = await asyncio.to_thread(self.runs.ended, job, identity)  # before reading: then nothing more can come
        path = events_path(self.runs.directory(job), job.attempt)
        events, offset = await asyncio.to_thread(read_events, path, job.events_offset)
        if events:
            await self.database.write(apply, job.id, job.events_offset, events, offset)
            return True
        if exit_ is None:
            return False
        await self._conclude(job, exit_)
        self._rung.discard(job.id)
        return True

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
        try:
            identity: Identity = await self.runs.start(job)
        except (OSError, EngineError) as error:
            await self.database.write(end, job.id, JobStatus.ERROR, failure("GenericTrainingError", str(error)))
            return True
        await self.database.write(lambda tx: tx.jobs.set(job.id, keeper=recorded(identity)))
        return True

    async def _conclude(self, job: StoredJob, exit_: Exit) -> None:
        """The process is gone and all it said is applied: move the job on, or end it."""
        kind = (job.ending or {}).get("kind")
        if kind == "failed":
            error = failure(job.ending["type"], job.ending["message"], job.ending["detail"])  # type: ignore[index]
            await self.database.write(end, job.id, JobStatus.ERROR, error)
        elif job.status == JobStatus.CANCELLING or kind == "stopped":
            await self.database.write(end, job.id, JobStatus.CANCELLED)
        elif kind == "prepared" and job.phase == Phase.PREPARING:
            await self.database.write(queue, job.id)
        elif kind == "finished" and job.phase == Phase.TRAINING:
            await self._register(job)
        else:
            what = "The data process" if job.phase == Phase.PREPARING else "The trainer"
            words = await asyncio.to_thread(self.runs.last_words, job)
            said = f"Its last words:\n{words}" if words else "It printed nothing."
            error = failure("GenericTrainingError", f"{what} ended without a result: {exit_.how()}.", said)
            await self.database.write(end, job.id, JobStatus.ERROR, error)

    async def _register(self, job: StoredJob) -> None:
        """Make the artifact a fileset and an adapter; a name taken meanwhile ends the job, the artifact stays."""
        finished = Finished.model_validate(job.ending)
        try:
            with self.blobs.hold(file.digest for file in finished.files):
                await asyncio.to_thread(self._adopt, job, finished)
                await self.database.write(register, job.id, finished)
        except (TunesmithError, OSError) as error:
            artifact = self.runs.directory(job) / "artifact"
            said = failure("CheckpointError", f"The result could not be registered: {error}", f"It lies in {artifact}.")
            await self.database.write(end, job.id, JobStatus.ERROR, said)

    def _adopt(self, job: StoredJob, finished: Finished) -> None:
        for file in finished.files:
            self.blobs.adopt(self.runs.directory(job) / "artifact" / file.path, file.digest)


def apply(tx: Tx, job_id: str, offset: int, events: Sequence[Event], behind: int) -> None:
    """One transaction: the events after `offset`, and the offset behind them. Nothing if they are applied already."""
    job = tx.jobs.by_id(job_id)
    if job.events_offset != offset or job.phase not in STEP_OF:
        return
    details: dict[str, Any] = {}
    points: list[tuple[str, int, int, float]] = []
    ending = job.ending
    for event in events:
        details.update(_details(event, {**job.status_details, **details}))
        match event:
            case Progress():
                points.append(("train_loss", event.step, event.epoch, event.loss))
            case Validated():
                points.append(("val_loss", event.step, event.epoch, event.loss))
            case PreparedRows() | Finished() | Failed() | Stopped():
                ending = event.model_dump(mode="json")
    tx.jobs.merge_details(job_id, STEP_OF[job.phase], details)
    tx.jobs.add_metrics(job_id, points)
    tx.jobs.set(job_id, events_offset=behind, ending=ending)


def fetched(tx: Tx, job_id: str, inputs: dict[str, Any]) -> None:
    """One transaction: all of a job's inputs are here; nothing happens when it has ended meanwhile."""
    if tx.jobs.by_id(job_id).phase == Phase.PREPARING:
        tx.jobs.set(job_id, inputs=inputs)
        tx.jobs.merge_details(job_id, DOWNLOAD, {"phase": Phase.PREPARING, **ARRIVED})


def queue(tx: Tx, job_id: str) -> None:
    """One transaction: the rows are ready, the job waits for a device; it stays active on the wire."""
    if tx.jobs.by_id(job_id).status == JobStatus.CANCELLING:
        end(tx, job_id, JobStatus.CANCELLED)
        return
    tx.jobs.move(job_id, Phase.QUEUED, JobStatus.ACTIVE, allowed_from=[Phase.PREPARING], keeper=None, ending=None)
    tx.jobs.set_step(job_id, DOWNLOAD, JobStatus.COMPLETED)
    tx.jobs.add_step(job_id, TRAINING, JobStatus.PENDING)
    tx.jobs.merge_details(job_id, TRAINING, {"phase": Phase.QUEUED})


def register(tx: Tx, job_id: str, finished: Finished) -> None:
    """One transaction: fileset, adapter, the last two steps, the device given back, the job completed."""
    job = tx.jobs.by_id(job_id)
    if job.status == JobStatus.CANCELLING:
        end(tx, job_id, JobStatus.CANCELLED)
        return
    output = job.output
    description = job.output_description or f"Customized model from job {job.ref}"
    tx.filesets.create(output.workspace, CreateFileset(name=output.name, description=description[:255]))
    for file in finished.files:
        tx.filesets.put(output.workspace, output.name, file.path, file.digest, file.size)
    base = tx.models.row(job.model.workspace, job.model.name)
    lora = job.plan.adapter
    tx.adapters.create(
        output,
        model_id=base["id"],
        model=job.model,
        fileset=output,
        description=description,
        rank=lora.rank,
        alpha=lora.alpha,
    )
    tx.jobs.set_step(job_id, TRAINING, JobStatus.COMPLETED)
    for step in (UPLOAD, REGISTRATION):
        tx.jobs.add_step(job_id, step, JobStatus.COMPLETED)
    tx.jobs.merge_details(job_id, UPLOAD, {"uploaded_files": len(finished.files), "fileset": str(output)})
    tx.jobs.merge_details(job_id, REGISTRATION, {"adapter": str(output)})
    end(tx, job_id, JobStatus.COMPLETED)


def end(tx: Tx, job_id: str, status: JobStatus, error: dict[str, Any] | None = None) -> None:
    """One transaction: the job's one end, its open steps ended with it, its device given back."""
    tx.jobs.move(job_id, Phase.DONE, status, allowed_from=WITH_PROCESS, keeper=None, ending=None, error_details=error)
    tx.jobs.end_open_steps(job_id, status, error)
    tx.jobs.merge_details(job_id, None, {"phase": status})
    tx.leases.release("job", job_id)


def failure(type_: str, message: str, detail: str = "") -> dict[str, Any]:
    """`error_details` of a job and its step."""
    return {"message": message, "type": type_, "detail": detail}


def _details(event: Event, known: dict[str, Any]) -> dict[str, Any]:
    """What an event changes in the status details."""
    match event:
        case Preparing():
            return {"rows_read": event.rows}
        case PreparedRows():
            return {
                "training_rows": event.training_rows,
                "validation_rows": event.validation_rows,
                "training_tokens": event.training_tokens,
                "trained_tokens": event.trained_tokens,
                "truncated_rows": event.truncated_rows,
                "dropped_rows": event.dropped_rows,
                "max_steps": event.steps,
                "step": 0,
            }
        case Started():
            return {
                "phase": "training",
                "backend": "automodel",
                "step": 0,
                "max_steps": event.steps,
                "num_epochs": event.epochs,
                "compute": event.compute,
                "device_type": event.device,
                "threads": event.threads,
                "trained_parameters": event.trained_parameters,
                "adapted_modules": event.adapted_modules,
            }
        case Progress():
            return _progress(event, int(known.get("max_steps") or event.step))
        case Validated():
            return {"val_loss": finite(event.loss), "val_step": event.step}
        case CheckpointSaved():
            return {"checkpoint_path": event.path, "checkpoint_step": event.step}
        case Warned():
            return {"warnings": [*known.get("warnings", []), event.message]}
        case Finished():
            return {"phase": "registering", "exported_step": event.exported_step, "exported_because": event.reason}
        case Stopped():
            return {"phase": "stopped", "step": event.step}
        case Failed():
            return {}


def _progress(event: Progress, max_steps: int) -> dict[str, Any]:
    speed = event.tokens / event.seconds if event.seconds > 0 else 0.0
    return {
        "phase": "training",
        "step": event.step,
        "epoch": event.epoch,
        "train_loss": finite(event.loss),
        "loss": finite(event.loss),
        "lr": event.learning_rate,
        "grad_norm": finite(event.grad_norm),
        "percentage_done": 100 * event.step // max(1, max_steps),
        "tokens_per_second": round(speed, 1),
        "eta_seconds": round(event.seconds / event.step * (max_steps - event.step), 1),
    }
