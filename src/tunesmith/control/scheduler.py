"""Whose turn it is: waiting jobs are prepared a few at a time, prepared ones train as devices come free.

`decide` is pure; `claim` applies it in one transaction, so a device is never promised twice. Claimed jobs are started
by the supervisor, which also finds those that a killed server had claimed and not started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.api.jobs import DOWNLOAD, TRAINING, JobStatus
from tunesmith.store.database import Tx
from tunesmith.store.jobs import Phase, StoredJob

PREPARED_AT_ONCE = 2
"""Data processes that run side by side; each takes about one core."""


@dataclass(frozen=True, slots=True)
class Claims:
    """Jobs that may go on."""

    prepare: tuple[StoredJob, ...]
    train: tuple[tuple[StoredJob, str], ...]
    """Each with its device."""


def decide(
    waiting: Sequence[StoredJob], preparing: int, queued: Sequence[StoredJob], free_devices: Sequence[str]
) -> Claims:
    """First come, first served: `waiting` and `queued` are ordered by age."""
    room = max(0, PREPARED_AT_ONCE - preparing)
    return Claims(prepare=tuple(waiting[:room]), train=tuple(zip(queued, free_devices, strict=False)))


def claim(tx: Tx, devices: Sequence[str]) -> int:
    """One transaction: let jobs go on as `decide` says; how many did."""
    claims = decide(
        waiting=tx.jobs.in_phase(Phase.WAITING, limit=PREPARED_AT_ONCE),
        preparing=tx.jobs.count(Phase.PREPARING),
        queued=tx.jobs.in_phase(Phase.QUEUED, limit=len(devices)),
        free_devices=tx.leases.free(devices),
    )
    for job in claims.prepare:
        tx.jobs.move(job.id, Phase.PREPARING, JobStatus.ACTIVE, allowed_from=[Phase.WAITING])
        tx.jobs.set_step(job.id, DOWNLOAD, JobStatus.ACTIVE)
        tx.jobs.merge_details(job.id, DOWNLOAD, {"phase": Phase.PREPARING})
    for job, device in claims.train:
        tx.leases.take(device, "job", job.id)
        tx.jobs.move(job.id, Phase.TRAINING, JobStatus.ACTIVE, allowed_from=[Phase.QUEUED])
        tx.jobs.set_step(job.id, TRAINING, JobStatus.ACTIVE)
        tx.jobs.merge_details(job.id, TRAINING, {"phase": "loading", "device": device})
    return len(claims.prepare) + len(claims.train)
