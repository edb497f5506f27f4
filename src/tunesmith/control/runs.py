"""Writes the run of a job to disk and starts its processes; both are safe to repeat after a crash."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tunesmith.control.launch import local
from tunesmith.control.launch.local import Identity
from tunesmith.control.request_id import VARIABLE
from tunesmith.handoff.wish import WISH_FILE, Wish
from tunesmith.store.blobs import Blobs
from tunesmith.store.data_dir import DataDir
from tunesmith.store.jobs import Phase, StoredJob

LAUNCHED: Final[dict[Phase, local.Phase]] = {Phase.PREPARING: "prepare", Phase.TRAINING: "train"}
MODULES: Final[dict[Phase, str]] = {Phase.PREPARING: "tunesmith.data", Phase.TRAINING: "tunesmith.train"}

GRACE_SECONDS = 60.0
"""From the doorbell to SIGKILL: time for a step and a checkpoint."""


class Runs:
    """The directories and processes of jobs."""

    def __init__(self, data_dir: DataDir, blobs: Blobs) -> None:
        self.data_dir = data_dir
        self.blobs = blobs

    def directory(self, job: StoredJob) -> Path:
        """Where the run of a job lies."""
        return self.data_dir.run(job.id)

    def write(self, job: StoredJob) -> None:
        """The plan, and read-only links to what it reads. Blocking."""
        run = self.directory(job)
        run.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, snapshot in job.snapshots.items():
            self.blobs.link(snapshot.files, run / "inputs" / name)
        job.plan.write(run / "plan.json")

    def found(self, job: StoredJob) -> Identity | None:
        """The keeper of the phase the job is in: as recorded, or as an earlier server left it unrecorded."""
        if job.keeper is not None:
            return Identity(**job.keeper)
        return local.find(self.directory(job), LAUNCHED[job.phase], job.attempt)

    async def start(self, job: StoredJob) -> Identity:
        """Start the process of the phase the job is in."""
        if job.phase == Phase.PREPARING:
            await asyncio.to_thread(self.write, job)
        run = self.directory(job)
        return await local.start(
            run,
            LAUNCHED[job.phase],
            job.attempt,
            [sys.executable, "-P", "-m", MODULES[job.phase], str(run)],
            local.engine_environment({"TUNESMITH_ATTEMPT": str(job.attempt), VARIABLE: job.request_id}),
            grace_seconds=GRACE_SECONDS,
        )

    def ask_to_stop(self, job: StoredJob, identity: Identity) -> None:
        """Leave the wish and ring the doorbell."""
        Wish(wish="cancel").write(self.directory(job) / WISH_FILE)
        local.ring(identity)

    def ended(self, job: StoredJob, identity: Identity) -> local.Exit | None:
        """How the phase's process ended; None while it runs. Blocking when its keeper was lost."""
        run, phase = self.directory(job), LAUNCHED[job.phase]
        facts = local.exit_facts(run, phase, job.attempt)
        if facts is None and not local.alive(identity):
            return local.lost(run, phase, job.attempt, identity)
        return facts

    def last_words(self, job: StoredJob, lines: int = 20) -> str:
        """The end of what the phase's process printed."""
        printed = local.last_lines(self.directory(job), LAUNCHED[job.phase], job.attempt, lines)
        return "\n".join(line.text for line in printed)


def recorded(identity: Identity) -> dict[str, object]:
    """An identity as it is stored."""
    return asdict(identity)
