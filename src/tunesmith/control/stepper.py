"""Runs the steps of platform jobs: gives them slots, starts their processes, follows these to their end.

Level-triggered, as the supervisor is: a turn looks at the step's row and at what its keeper wrote, so it does not
matter which server started the process. The end of a keeper wakes the loop at once where the system can tell (Linux).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tunesmith.api.jobs import JobStatus
from tunesmith.control.launch import local
from tunesmith.control.launch.local import Exit, Identity
from tunesmith.control.platform_jobs import GRACE_SECONDS, has_process, settle
from tunesmith.control.secrets import Vault
from tunesmith.control.step_runs import StepRuns, address
from tunesmith.errors import TunesmithError
from tunesmith.handoff.crash import crash_at
from tunesmith.settings import Settings
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database, Tx
from tunesmith.store.jobs import Discard
from tunesmith.store.platform_steps import TO_BE_STARTED, PlatformStep

LOOK_FOR_LIFE_SECONDS: Final = 1.0
"""Between two looks whether a keeper that has written nothing is still there."""
WANTED = frozenset({JobStatus.PENDING, JobStatus.ACTIVE})
"""Statuses in which a step should have a process."""
UNWANTED = frozenset({JobStatus.CANCELLING, JobStatus.PAUSING, JobStatus.RESUMING})
"""Statuses in which a process that is there is stopped at once; when the step is over it may end by itself first."""


@dataclass(slots=True)
class _Heard:
    """What this server remembers of a process that it follows."""

    spoke_at: float
    looked_at: float
    said: tuple[object, ...] = ()
    """What was there to be heard at `spoke_at`."""
    over_since: float | None = None
    """Since when its step is over though the process is there."""
    rung: bool = False
    stale: bool = False


class Stepper:
    """Takes turns with steps that have, or should have, a process, and with what deleted jobs left."""

    def __init__(
        self, database: Database, data_dir: DataDir, vault: Vault, settings: Settings, stir: Callable[[], None]
    ) -> None:
        self.database = database
        self.runs = StepRuns(data_dir, vault, address(settings.host, settings.port) if settings.port else "")
        self.slots = settings.platform_job_slots or max(2, os.cpu_count() or 1)
        self._cold = settings.allow_subprocess_jobs
        """Whether the forker is to be started still, before the first step needs it."""
        self._stir = stir
        self._heard: dict[str, _Heard] = {}
        self._watched: dict[int, int] = {}
        """By pid of a keeper: the handle that tells its end."""

    def listens_at(self, host: str, port: int) -> None:
        """Learn where this server is, if the settings left the port open."""
        self.runs.address = self.runs.address or address(host, port)

    async def look(self) -> tuple[bool, Sequence[PlatformStep | Discard]]:
        """Give free slots to the steps that wait, and find what to take a turn with."""
        if self._cold:
            self._cold = False
            await asyncio.to_thread(self.runs.forker.warm)
        running, following, left = await self.database.read(found, self.slots)
        if following:
            running = await self.database.write(claim, self.slots)
            crash_at("step-claimed")
        for forgotten in self._heard.keys() - {step.id for step in running} - {gone.id for gone in left}:
            self._heard.pop(forgotten)
        return False, [*running, *left]

    async def turn(self, step: PlatformStep | Discard) -> bool:
        """Do for one step what can be done now; whether something moved."""
        if isinstance(step, Discard):
            return await self._clear_away(step)
        if step.keeper is None:
            return await (self._begin(step) if step.status in WANTED else self._never_began(step))
        identity, now = Identity(**step.keeper), time.monotonic()
        heard = self._heard.setdefault(step.id, _Heard(now, now))
        exit_ = await self._ended(step, identity, heard)
        if exit_ is None:
            self._watch(identity.pid)
            self._judge(step, identity, heard)
            return False
        words = "" if exit_.code == 0 else await asyncio.to_thread(self.runs.last_words, step)
        await self.database.write(pass_on, step.id, exit_, words, self.slots, stale=heard.stale)
        self._heard.pop(step.id, None)
        return True

    def close(self) -> None:
        """Let go of what is watched; processes go on, and the next server finds them."""
        for pid in list(self._watched):
            self._unwatch(pid)
        self.runs.forker.close()

    async def _begin(self, step: PlatformStep) -> bool:
        try:
            identity = await self.runs.start(step)
        except (OSError, TunesmithError) as error:
            await self.database.write(fail, step.id, f"The step's process could not be started: {error}")
            return True
        crash_at("step-started")
        places = {
            "subprocess_work_dir": str(self.runs.work(step)),
            "subprocess_persistent_storage_path": str(self.runs.storage(step)),
        }
        await self.database.write(begun, step.id, asdict(identity), places)
        self._watch(identity.pid)
        return True

    async def _never_began(self, step: PlatformStep) -> bool:
        """It was stopped before a process was recorded; one may be there, of a server that died just then."""
        left = self.runs.found(step)
        if left is not None:
            await self.database.write(lambda tx: tx.platform_steps.set(step.id, keeper=asdict(left)))
        else:
            await self.database.write(conclude, step.id, None, "")
        return True

    async def _ended(self, step: PlatformStep, identity: Identity, heard: _Heard) -> Exit | None:
        """How the process ended; None while it runs, as far as is known."""
        surely = time.monotonic() - heard.looked_at >= LOOK_FOR_LIFE_SECONDS
        if not surely:
            return self.runs.ended(step, identity, surely=False)
        heard.looked_at = time.monotonic()
        return await asyncio.to_thread(self.runs.ended, step, identity, surely=True)

    def _judge(self, step: PlatformStep, identity: Identity, heard: _Heard) -> None:
        """Ring, once, at a process that is not wanted any more, or that has said nothing for too long."""
        now, patience = time.monotonic(), step.spec["lifecycle"]["staleness_timeout_seconds"]
        if step.status in WANTED:
            if patience and (said := (step.updated_at, self.runs.log_bytes(step))) != heard.said:
                heard.said, heard.spoke_at = said, now
            heard.stale = bool(patience) and now - heard.spoke_at > patience
            unwanted = heard.stale
        elif step.status in UNWANTED:
            unwanted = True
        else:
            heard.over_since = heard.over_since or now
            unwanted = now - heard.over_since > GRACE_SECONDS
        if unwanted and not heard.rung:
            heard.rung = local.ring(identity)

    async def _clear_away(self, gone: Discard) -> bool:
        """End what a deleted job left running, then delete its files."""
        left = await asyncio.to_thread(self.runs.left, gone)
        heard = self._heard.setdefault(gone.id, _Heard(time.monotonic(), 0.0))
        for identity in left:
            if time.monotonic() - heard.spoke_at > GRACE_SECONDS + END_SECONDS:
                await local.stop(identity, 0)
            elif not heard.rung:
                local.ring(identity)
            self._watch(identity.pid)
        heard.rung = True
        if left:
            return False
        await asyncio.to_thread(self.runs.remove, gone)
        await self.database.write(lambda tx: tx.jobs.forget(gone.id))
        self._heard.pop(gone.id, None)
        return True

    # -- who ends is heard at once -----------------------------------------------------------------------------------

    def _watch(self, pid: int) -> None:
        """Stir the loop when this process is gone; where the system cannot tell, the loop looks now and then."""
        if pid in self._watched or not hasattr(os, "pidfd_open"):
            return
        try:
            handle = os.pidfd_open(pid)
        except OSError:  # gone already, or too many open files
            self._stir()
            return
        self._watched[pid] = handle
        asyncio.get_running_loop().add_reader(handle, self._gone, pid)

    def _gone(self, pid: int) -> None:
        self._unwatch(pid)
        self._stir()

    def _unwatch(self, pid: int) -> None:
        handle = self._watched.pop(pid)
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)


END_SECONDS: Final = 5.0
"""What a keeper may take beyond its grace."""


def found(tx: Tx, slots: int) -> tuple[list[PlatformStep], list[PlatformStep], list[Discard]]:
    """What runs, what gets the free slots, and what deleted jobs left.

    A step waits until the process of the one before it is gone; jobs that have begun go first.
    """
    begun = tx.platform_steps.begun()
    running = [step for step in begun if has_process(step)]
    held = {step.job_id for step in running}
    waiting = [step for step in begun if step.status in TO_BE_STARTED and step.job_id not in held]
    free = max(0, slots - len(running))
    following = [*waiting[:free], *tx.platform_steps.fresh(free - len(waiting))]
    return running, following, [each for each in tx.jobs.discarded() if each.steps]


def claim(tx: Tx, slots: int) -> list[PlatformStep]:
    """One transaction: steps that wait get what slots are free; what runs then."""
    _, following, _ = found(tx, slots)
    for step in following:
        if tx.platform_steps.move(step, JobStatus.PENDING):
            settle(tx, step.job_id, {"message": "Subprocess scheduled"})
    running, _, _ = found(tx, 0)
    return running


def begun(tx: Tx, step_id: str, keeper: dict[str, Any], places: dict[str, Any]) -> None:
    """One transaction: the step has a process. Nothing happens when its job is gone: what runs is found and ended."""
    step = tx.platform_steps.find(step_id)
    if step is None:
        return
    details = {"message": "Job is running", **places}
    to = JobStatus.ACTIVE if step.status == JobStatus.PENDING else step.status
    tx.platform_steps.move(step, to, keeper=keeper, status_details={**step.status_details, **details})
    tx.platform_steps.put_task(step.id, step.task_id, status=to, status_details=details)
    settle(tx, step.job_id, details)


def fail(tx: Tx, step_id: str, message: str) -> None:
    """One transaction: the step ends with an error before it began."""
    step = tx.platform_steps.find(step_id)
    if step is not None and step.status in WANTED:
        tx.platform_steps.move(step, JobStatus.ERROR, error_details=_error(message))
        settle(tx, step.job_id, {"message": message})


def pass_on(tx: Tx, step_id: str, exit_: Exit, words: str, slots: int, *, stale: bool) -> None:
    """One transaction: `conclude`, and the slot that came free is the next one's at once."""
    conclude(tx, step_id, exit_, words, stale=stale)
    claim(tx, slots)


def conclude(tx: Tx, step_id: str, exit_: Exit | None, words: str, *, stale: bool = False) -> None:
    """One transaction: the step's process is gone (None: there never was one), and the step and its job move on.

    What a worker has said of its step stands, however its process ended.
    """
    step = tx.platform_steps.find(step_id)
    if step is None:
        return
    to, error = step.status, None
    if step.status == JobStatus.CANCELLING:
        to = JobStatus.CANCELLED
    elif step.status == JobStatus.PAUSING:
        to = JobStatus.PAUSED
    elif step.status in WANTED and exit_ is not None:
        to = JobStatus.COMPLETED if exit_.code == 0 and not stale else JobStatus.ERROR
        error = None if to == JobStatus.COMPLETED else _failure(step, exit_, words, stale=stale)
    details = _details(step, to, exit_, error)
    if exit_ is not None and to in (JobStatus.PAUSED, JobStatus.RESUMING):
        tx.jobs.set(step.job_id, attempt=step.attempt + 1)
    values = {"error_details": error} if error else {}
    tx.platform_steps.move(step, to, keeper=None, status_details={**step.status_details, **details}, **values)
    if exit_ is not None:
        tx.platform_steps.put_task(step.id, step.task_id, status=to, status_details=details, **values)
    settle(tx, step.job_id, details)


def _details(step: PlatformStep, to: JobStatus, exit_: Exit | None, error: dict[str, Any] | None) -> dict[str, Any]:
    """What the status says of an end; nothing where a worker has spoken already, or nothing ran."""
    if exit_ is None or step.status == to:
        return {}
    code = _code(exit_)
    messages = {
        JobStatus.COMPLETED: f"Job completed successfully with exit code {code}",
        JobStatus.CANCELLED: f"Job was cancelled with exit code {code}",
        JobStatus.PAUSED: f"Job was paused with exit code {code}",
    }
    return {"message": error["message"] if error else messages[to], "exit_code": code}


def _failure(step: PlatformStep, exit_: Exit, words: str, *, stale: bool) -> dict[str, Any]:
    said = f"Its last words:\n{words}" if words else "It printed nothing."
    if stale:
        patience = step.spec["lifecycle"]["staleness_timeout_seconds"]
        heard_of = f"no status, task or output for {patience} s (lifecycle.staleness_timeout_seconds)"
        return _error(f"Step '{step.name}' was ended: {heard_of}.", "StepTimeoutError", said)
    if exit_.lost:
        return _error(f"Nobody knows how the process of step '{step.name}' ended: {exit_.lost}", "StepError", said)
    how = "" if exit_.code is not None else f" ({exit_.how()})"
    return _error(f"Job exited with code {_code(exit_)}{how}", "StepError", said)


def _error(message: str, kind: str = "StepError", detail: str = "") -> dict[str, Any]:
    return {"message": message, "type": kind, "detail": detail}


def _code(exit_: Exit) -> int | None:
    """As a shell's parent has it: negative for a signal, None when nobody knows."""
    if exit_.signal is None:
        return exit_.code
    return -(signal.Signals[exit_.signal] if exit_.signal in signal.Signals.__members__ else int(exit_.signal[3:]))
