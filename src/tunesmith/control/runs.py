"""Writes the run of a job to disk and starts its processes; both are safe to repeat after a crash."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final, Literal

from tunesmith.control.launch import local
from tunesmith.control.launch.forker import Forker
from tunesmith.control.launch.local import Identity
from tunesmith.control.request_id import VARIABLE
from tunesmith.handoff.events import ATTEMPT
from tunesmith.handoff.inputs import INPUTS, INPUTS_FILE, Inputs
from tunesmith.handoff.plan import PLAN_FILE
from tunesmith.handoff.wish import WISH_FILE, Wish
from tunesmith.store.blobs import Blobs
from tunesmith.store.data_dir import DataDir
from tunesmith.store.jobs import Active, Discard, Phase, StoredJob

LAUNCHED: Final[dict[Phase, local.Phase]] = {Phase.PREPARING: "prepare", Phase.TRAINING: "train"}
MODULES: Final[dict[Phase, str]] = {Phase.PREPARING: "tunesmith.data", Phase.TRAINING: "tunesmith.train"}

ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy's library starts threads when it is imported, and a process that has some cannot be forked. Training multiplies
with torch alone."""
WARM: Final = {"tunesmith.train": "tunesmith.train.warm"}
"""What a process imports ahead so that trainers and data processes can be forked from it, by what trains."""
WARM_UP_SECONDS = 30.0
"""How long a trainer may wait for that: it would spend most of the time on the same imports."""

GRACE_SECONDS = 60.0
"""From the doorbell to SIGKILL: time for a step and a checkpoint."""


class Runs:
    """The directories and processes of jobs."""

    def __init__(self, data_dir: DataDir, blobs: Blobs, warm_seconds: float = 0.0) -> None:
        """Processes are forked from a warm one, which stays so long without work; 0 = each starts afresh."""
        self.data_dir = data_dir
        self.blobs = blobs
        self._forker: Forker | None = None
        self._waited_since: float | None = None
        """When the first of those that wait for the warm process began to."""
        if warm_seconds and sys.platform == "linux" and (module := WARM.get(MODULES[Phase.TRAINING])):
            self._forker = Forker(local.engine_environment(ONE_THREAD), module, warm_seconds, data_dir.root)

    def directory(self, job: Active | Discard) -> Path:
        """Where the run of a job lies."""
        return self.data_dir.run(job.id)

    def write(self, job: StoredJob) -> None:
        """The plan, and read-only links to what it reads. Blocking."""
        run = self.directory(job)
        run.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, snapshot in job.snapshots.items():
            self.blobs.link(snapshot.files, run / INPUTS / name)
        files = {name: {file.path: str(file.digest) for file in each.files} for name, each in job.snapshots.items()}
        Inputs(files=files).write(run / INPUTS_FILE)
        job.plan.write(run / PLAN_FILE)

    def found(self, job: Active | Discard) -> Identity | None:
        """The keeper of the phase the job is in: as recorded, or as an earlier server left it unrecorded."""
        if job.keeper is not None:
            return Identity(**job.keeper)
        if job.phase not in LAUNCHED:
            return None
        return local.find(self.directory(job), LAUNCHED[job.phase], job.attempt)

    async def warm(self, job: Active) -> bool:
        """Whether the process of the phase would start as fast as it can; False while that is being seen to."""
        forker = self._forker
        if forker is None or job.phase == Phase.PREPARING:
            return True
        await asyncio.to_thread(forker.warm, self.directory(job))
        if forker.failed or forker.ready():
            self._waited_since = None
            return True
        self._waited_since = self._waited_since or time.monotonic()
        return time.monotonic() - self._waited_since > WARM_UP_SECONDS

    def close(self) -> None:
        """The server goes; what was forked stays. Blocking."""
        if self._forker is not None:
            self._forker.close()

    async def start(self, job: StoredJob, environment: Mapping[str, str]) -> Identity:
        """Start the process of the phase the job is in, with what only this job's processes are told."""
        await asyncio.to_thread(self._make_ready, job)
        run = self.directory(job)
        told = {ATTEMPT: str(job.attempt), VARIABLE: job.request_id, **environment}
        identity = await local.start(
            run,
            LAUNCHED[job.phase],
            job.attempt,
            [sys.executable, "-P", "-m", MODULES[job.phase], str(run)],
            local.engine_environment(told),
            grace_seconds=GRACE_SECONDS,
            forker=self._forker if self._forker and self._forker.ready() else None,
            module=f"{MODULES[job.phase]}.__main__",
        )
        if self._forker is not None:
            await asyncio.to_thread(self._forker.warm, run)  # for what comes after the rows are prepared
        return identity

    def wish(self, job: Active | Discard, identity: Identity, wish: Literal["cancel", "pause"]) -> None:
        """Leave the wish and ring the doorbell."""
        Wish(wish=wish).write(self.directory(job) / WISH_FILE)
        local.ring(identity)

    def ended(self, job: Active | Discard, identity: Identity) -> local.Exit | None:
        """How the phase's process ended; None while it runs. Blocking when its keeper was lost."""
        run, phase = self.directory(job), LAUNCHED[job.phase]
        facts = local.exit_facts(run, phase, job.attempt)
        if facts is None and not local.alive(identity):
            return local.lost(run, phase, job.attempt, identity)
        return facts

    def last_words(self, job: Active, lines: int = 20) -> str:
        """The end of what the phase's process printed."""
        printed = local.last_lines(self.directory(job), LAUNCHED[job.phase], job.attempt, lines)
        return "\n".join(line.text for line in printed)

    def remove(self, job: Discard) -> None:
        """Delete the run. Blocking."""
        run = self.directory(job)
        if run.exists():
            shutil.rmtree(run)

    def _make_ready(self, job: StoredJob) -> None:
        """No wish of an earlier attempt stands when the process starts; one that has begun already keeps its own."""
        if job.phase == Phase.PREPARING:
            self.write(job)
        elif local.find(self.directory(job), LAUNCHED[job.phase], job.attempt) is None:
            (self.directory(job) / WISH_FILE).unlink(missing_ok=True)


def recorded(identity: Identity) -> dict[str, object]:
    """An identity as it is stored."""
    return asdict(identity)
