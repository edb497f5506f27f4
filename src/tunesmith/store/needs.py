"""What jobs need of the data directory: read by garbage collection and by backups."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, exists, select

from tunesmith.store.filesets import Snapshot
from tunesmith.store.tables import discards, job_steps, jobs

ENDED = "done"
"""The phase of a job whose status is final."""


def job_ids(connection: Connection) -> set[str]:
    """Of every job there is, and of those deleted ones of which something is left."""
    kept = set(connection.execute(select(jobs.c.id)).scalars())
    return kept | set(connection.execute(select(discards.c.id)).scalars())


def ended_before(connection: Connection, moment: datetime) -> list[str]:
    """Ids of the jobs that were over before then. A job's own `updated_at` does not tell, its steps' does."""
    later = exists().where(job_steps.c.job_id == jobs.c.id, job_steps.c.updated_at >= moment)
    query = select(jobs.c.id).where(jobs.c.phase == ENDED, jobs.c.created_at < moment, ~later)
    return list(connection.execute(query).scalars())


def input_digests(connection: Connection, without: Collection[str] = ()) -> set[str]:
    """Of every blob that a job's inputs name, but for the jobs `without`."""
    found: set[str] = set()
    for job_id, inputs in connection.execute(select(jobs.c.id, jobs.c.inputs).where(jobs.c.inputs.is_not(None))):
        if job_id not in without:
            found |= digests_in(inputs)
    return found


def digests_in(inputs: Mapping[str, Any]) -> set[str]:
    """Of every blob that the inputs of one job name."""
    snapshots = [Snapshot.of_json(each) for each in inputs.values()]
    return {file.digest for snapshot in snapshots for file in snapshot.files if file.digest}
