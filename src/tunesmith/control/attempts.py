"""A run's attempts: it rests, goes on, or tries again, each time from its last checkpoint.

Each function is one transaction. An attempt has files of its own (events, keeper, exit, log), so a number is used once.
"""

from __future__ import annotations

from typing import Any

from tunesmith.api.jobs import TRAINING, JobStatus
from tunesmith.handoff.crash import crash_at
from tunesmith.store.database import Tx
from tunesmith.store.jobs import Active, Phase, StoredJob

WITH_PROCESS = (Phase.PREPARING, Phase.TRAINING)
MOST_ATTEMPTS = 3
SERVER_STOPPED = "server stopped"
"""Why a job was paused that the next server resumes by itself."""


def rest(tx: Tx, job_id: str, stopping: bool, how: str = "") -> None:
    """The job is paused and holds nothing.

    `how` says how its process died, if it did before it had heard: what it did after its last checkpoint is lost, which
    the job says. What was to rest because an earlier server stopped goes on at once, unless this one is `stopping`.
    """
    job = tx.jobs.by_id(job_id)
    step, reached = int(job.status_details.get("step") or 0), reached_by(job)
    details: dict[str, Any] = {"phase": "paused", "paused_at_step": reached if how else step}
    if how and step > reached:
        said = (
            f"the trainer ended before it had saved ({how}): what it did behind step {reached}, up to {step}, is lost"
        )
        details["warnings"] = [*job.status_details.get("warnings", []), said]
    tx.jobs.move(job_id, Phase.PAUSED, JobStatus.PAUSED, allowed_from=WITH_PROCESS, keeper=None, ending=None)
    tx.jobs.steps.move_open(job_id, JobStatus.PAUSED)
    tx.jobs.merge_details(job_id, None, details)
    tx.leases.release("job", job_id)
    if job.status_details.get("paused_because") == SERVER_STOPPED and not stopping:
        go_on(tx, tx.jobs.by_id(job_id))
    crash_at("pause-before-commit")


def go_on(tx: Tx, job: StoredJob) -> None:
    """A paused job goes back into the queue, where its preparation had come to."""
    prepared = tx.jobs.steps.exists(job.id, TRAINING)
    values = next_attempt(job, reached_by(job)) if prepared else {"keeper": None, "ending": None}
    to = Phase.QUEUED if prepared else Phase.WAITING
    tx.jobs.move(job.id, to, JobStatus.RESUMING, allowed_from=[Phase.PAUSED], **values)
    tx.jobs.steps.move_open(job.id, JobStatus.RESUMING)
    pauses = int(job.status_details.get("pauses") or 0) + prepared
    tx.jobs.merge_details(job.id, None, {"phase": to, "paused_because": None, "pauses": pauses})


def try_again(tx: Tx, job_id: str, how: str) -> bool:
    """A run that died without a word goes back into the queue as a new attempt, from its last checkpoint; False where
    it had not come further than it began, or was tried often enough."""
    job = tx.jobs.by_id(job_id)
    reached = reached_by(job)
    if job.phase != Phase.TRAINING or job.status != JobStatus.ACTIVE:
        return False
    if job.attempt >= MOST_ATTEMPTS + int(job.status_details.get("pauses") or 0) or reached <= job.attempt_step:
        return False
    tx.leases.release("job", job_id)
    tx.jobs.move(job_id, Phase.QUEUED, JobStatus.ACTIVE, allowed_from=[Phase.TRAINING], **next_attempt(job, reached))
    tx.jobs.steps.move(job_id, TRAINING, JobStatus.PENDING)
    said = f"attempt {job.attempt} ended without a word ({how}); it goes on from the checkpoint of step {reached}"
    warnings = [*job.status_details.get("warnings", []), said]
    tx.jobs.merge_details(job_id, TRAINING, {"phase": Phase.QUEUED, "warnings": warnings, "attempt": job.attempt + 1})
    return True


def reached_by(job: StoredJob) -> int:
    """The step of its last checkpoint, 0 without one."""
    return int(job.status_details.get("checkpoint_step") or 0)


def next_attempt(job: Active, from_step: int) -> dict[str, Any]:
    """The columns of a job that is to begin again from a checkpoint."""
    return {
        "attempt": job.attempt + 1,
        "attempt_step": from_step,
        "events_offset": 0,
        "keeper": None,
        "ending": None,
    }
