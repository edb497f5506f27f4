"""Whose turn it is: waiting jobs are prepared a few at a time, prepared ones train as devices come free.

`order` and `assign` are pure; `claim` applies them in one transaction, so a device is never promised twice. Claimed
jobs are started by the supervisor, which also finds those that a killed server had claimed and not started.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.api.base import JsonObject
from tunesmith.api.jobs import DOWNLOAD, TRAINING, JobStatus
from tunesmith.control.devices import index_of
from tunesmith.store.database import Tx
from tunesmith.store.jobs import Phase, Waiting

PREPARED_AT_ONCE = 2
"""Data processes that run side by side; each takes about one core."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A job in the queue and what it gets."""

    job: Waiting
    devices: tuple[str, ...]
    """Empty: it waits."""
    kept: tuple[str, ...]
    """Free devices that are kept for it until it has enough."""


def order(queue: Sequence[Waiting], held: Mapping[str, int]) -> list[Waiting]:
    """The queue in the order of turns; `held` says how many devices each workspace has now.

    The higher priority first. Among equals the workspace that has (or will have had) the fewest devices, then the
    oldest. So a burst of one workspace does not keep another waiting.
    """
    ordered: list[Waiting] = []
    share = Counter(held)
    for priority in sorted({job.priority for job in queue}, reverse=True):
        lines: dict[str, deque[Waiting]] = {}
        for job in sorted((job for job in queue if job.priority == priority), key=lambda job: (job.created_at, job.id)):
            lines.setdefault(job.workspace, deque()).append(job)
        while lines:
            workspace = min(lines, key=lambda name: (share[name], lines[name][0].created_at, lines[name][0].id))
            job = lines[workspace].popleft()
            if not lines[workspace]:
                del lines[workspace]
            share[workspace] += job.devices
            ordered.append(job)
    return ordered


def assign(ordered: Sequence[Waiting], free: Sequence[str]) -> list[Turn]:
    """Who gets which of the free devices.

    A job for which there are too few keeps those it could use, and nothing that comes after it takes them: a large job
    does not starve.
    """
    left = list(free)
    turns = []
    for job in ordered:
        fit = tuple(name for name in left if not job.named or index_of(name) in job.named)
        enough = len(fit) >= job.devices
        taken = fit[: job.devices] if enough else fit
        left = [name for name in left if name not in taken]
        turns.append(Turn(job, taken if enough else (), () if enough else taken))
    return turns


def claim(tx: Tx, devices: Sequence[str]) -> int:
    """One transaction: let jobs go on; how many did."""
    room = PREPARED_AT_ONCE - tx.jobs.count(Phase.PREPARING)
    prepared = order(tx.jobs.waiting(Phase.WAITING), {})[:room] if room > 0 else []
    for job in prepared:
        tx.jobs.move(job.id, Phase.PREPARING, JobStatus.ACTIVE, allowed_from=[Phase.WAITING])
        tx.jobs.steps.move(job.id, DOWNLOAD, JobStatus.ACTIVE)
        tx.jobs.merge_details(job.id, DOWNLOAD, {"phase": Phase.PREPARING})
    started = [turn for turn in turns(tx, devices) if turn.devices]
    for turn in started:
        for device in turn.devices:
            tx.leases.take(device, "job", turn.job.id)
        tx.jobs.move(turn.job.id, Phase.TRAINING, JobStatus.ACTIVE, allowed_from=[Phase.QUEUED])
        tx.jobs.steps.move(turn.job.id, TRAINING, JobStatus.ACTIVE)
        tx.jobs.merge_details(turn.job.id, TRAINING, {"phase": "loading", "device": ", ".join(turn.devices)})
    return len(prepared) + len(started)


def anybody_waits(tx: Tx) -> bool:
    """Whether `claim` could find anything to do: asked first, since it is a read."""
    return bool(tx.jobs.count(Phase.WAITING) or tx.jobs.count(Phase.QUEUED))


def turns(tx: Tx, devices: Sequence[str]) -> list[Turn]:
    """The queue for devices, in order."""
    queue = tx.jobs.waiting(Phase.QUEUED)
    if not queue:
        return []
    return assign(order(queue, tx.leases.by_workspace()), tx.leases.free(devices))


def place(tx: Tx, devices: Sequence[str], job_id: str) -> JsonObject | None:
    """Where a job stands in its queue and why it waits, as `status_details.queue`; None when it does not wait."""
    for phase in (Phase.WAITING, Phase.QUEUED):
        queue = tx.jobs.waiting(phase)
        if all(job.id != job_id for job in queue):
            continue
        if phase is Phase.WAITING:
            ordered = [job.id for job in order(queue, {})]
            reason = f"its rows are read when one of {PREPARED_AT_ONCE} data processes is free"
            return {"position": ordered.index(job_id) + 1, "of": len(ordered), "reason": reason}
        ordered_turns = turns(tx, devices)
        position = next(number for number, turn in enumerate(ordered_turns, 1) if turn.job.id == job_id)
        reason = _reason(ordered_turns[position - 1], devices)
        return {"position": position, "of": len(ordered_turns), "reason": reason}
    return None


def _reason(turn: Turn, devices: Sequence[str]) -> str:
    wanted = f"{turn.job.devices} of {len(devices)} devices"
    if turn.job.named:
        wanted = f"one of the devices {', '.join(turn.job.named)}"
    if turn.devices:
        return f"starts now on {', '.join(turn.devices)}"
    kept = f"; {', '.join(turn.kept)} is kept for it" if turn.kept else ""
    return f"waits for {wanted}{kept}"
