"""The composition root: everything that a server needs, put together, started and stopped in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from sqlalchemy import select

from tunesmith.control import scheduler
from tunesmith.control.adapters import AdapterService
from tunesmith.control.analysis import Analysis
from tunesmith.control.calls import caller
from tunesmith.control.contents import Contents
from tunesmith.control.deployments import DeploymentService, Reconciler
from tunesmith.control.devices import discover
from tunesmith.control.fetching import Fetching
from tunesmith.control.filesets import FilesetService
from tunesmith.control.garbage import Garbage
from tunesmith.control.hub import Hub
from tunesmith.control.job_results import ResultService
from tunesmith.control.jobs import JobService
from tunesmith.control.live import Live
from tunesmith.control.models import ModelService
from tunesmith.control.platform_jobs import PlatformJobService
from tunesmith.control.previews import PreviewService
from tunesmith.control.projects import ProjectService
from tunesmith.control.routing import Routing
from tunesmith.control.runs import GRACE_SECONDS, Runs
from tunesmith.control.secrets import Keys, SecretService, Vault
from tunesmith.control.serving import ServingClient
from tunesmith.control.sources.registry import Sources
from tunesmith.control.stepper import Stepper
from tunesmith.control.submission import Submission
from tunesmith.control.supervisor import Supervisor, slowness
from tunesmith.control.webhooks import Deliverer, WebhookService
from tunesmith.control.workspaces import Cleanup, WorkspaceService
from tunesmith.handoff.crash import crash_at
from tunesmith.settings import Settings
from tunesmith.store.blobs import Blobs
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database

log = logging.getLogger(__name__)

BUSY_SECONDS = 0.2
"""Between two looks at processes that run."""
IDLE_SECONDS = 5.0
"""Between two looks when nothing runs; a change wakes the loop at once."""
LONGEST_BACKOFF_SECONDS = 60.0
GARBAGE_SECONDS = 3600.0
"""Between two rounds of garbage collection."""
READY_SECONDS = 5.0
"""What a database may take to say that it is there."""


class _Item(Protocol):
    @property
    def id(self) -> str: ...


Look = Callable[[], Awaitable[tuple[bool, Sequence[_Item]]]]
"""Finds the items to take a turn with; also says whether looking has moved anything."""


class Services:
    """One data directory's database, blobs, verbs and loops."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.data_dir = DataDir(settings.data_dir)
        self.data_dir.lock()
        self.database = Database(settings.database_url or self.data_dir.database)
        self.blobs = Blobs(self.data_dir.blobs)
        self.http = caller()
        self._stirred = asyncio.Event()
        self._step = asyncio.Event()
        self._reconcile = asyncio.Event()
        self._analyse = asyncio.Event()
        self._close = asyncio.Event()
        self._deliver = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self.failures: dict[str, str] = {}
        """By loop and item: what its last turn raised, until a turn succeeds."""

        keys = Keys(settings, self.data_dir)
        self.vault = Vault(self.database, keys)
        self.secrets = SecretService(self.database, keys)
        sources = Sources(settings, self.vault)
        self.contents = Contents(self.blobs, sources, self.database)
        self.analysis = Analysis(self.database, self.contents)
        self.fetching = Fetching(self.contents)
        self.devices = discover(settings.cpu_slots)
        runs = Runs(self.data_dir, self.blobs, 0.0 if self.devices.have_gpus else settings.warm_seconds)
        self.supervisor = Supervisor(self.database, runs, self.blobs, self.fetching, self.vault, self.devices)
        self.reconciler = Reconciler(
            self.database, self.blobs, self.contents, self.data_dir, ServingClient(self.http), self.fetching
        )
        self.workspaces = WorkspaceService(self.database, self._close.set)
        self.cleanup = Cleanup(self.workspaces, self.data_dir, self._stir_jobs, self._reconcile.set)
        self.projects = ProjectService(self.database)
        self.filesets = FilesetService(self.database, self.blobs, self.contents, sources, self._analyse.set)
        self.garbage = Garbage(self.database, self.blobs, self.data_dir, settings)
        self.hub = Hub(self.filesets)
        self.models = ModelService(
            self.database,
            remote_code=settings.allow_remote_code,
            pending=self._analyse.set,
            removed=self._reconcile.set,
        )
        self.adapters = AdapterService(self.database, self.contents, self._reconcile.set)
        self.submission = Submission(self.database, self.contents, self.devices, self._stir_jobs)
        self.jobs = JobService(self.database, self.data_dir, self.devices, self._stir_jobs)
        self.platform_jobs = PlatformJobService(self.database, settings, self._stir_jobs)
        self.stepper = Stepper(self.database, self.data_dir, self.vault, settings, self._step.set)
        self.results = ResultService(self.database, self.filesets)
        self.live = Live(self.database, self.data_dir, self.jobs)
        self.webhooks = WebhookService(self.database, self.vault, settings)
        self.deliverer = Deliverer(self.database, self.vault, settings, self.http, self._deliver.set)
        self.previews = PreviewService(self.database, self.contents, self.data_dir)
        self.deployments = DeploymentService(self.database, self._reconcile.set)
        self.routing = Routing(self.database, self.reconciler)

    async def start(self) -> None:
        """Start the loops; whatever an earlier server left running is taken up again."""
        jobs = _Turns("job", self.supervisor.turn, self.failures, self._moved)
        deployments = _Turns("deployment", self.reconciler.turn, self.failures)
        steps = _Turns("step", self.stepper.turn, self.failures, self._moved)
        models = _Turns("model", self.analysis.turn, self.failures)
        webhooks = _Turns("webhook", self.deliverer.turn, self.failures)
        workspaces = _Turns("workspace", self.cleanup.turn, self.failures)
        await self.workspaces.load()
        await self.jobs.resume_stopped()
        await self.secrets.warn_of_lost_keys()
        self._loops = [
            asyncio.create_task(self._run(self._stirred, self._jobs, jobs), name="jobs"),
            asyncio.create_task(self._run(self._step, self.stepper.look, steps), name="steps"),
            asyncio.create_task(self._run(self._reconcile, self._deployments, deployments), name="deployments"),
            asyncio.create_task(self._run(self._analyse, self._pending_models, models), name="models"),
            asyncio.create_task(self._run(self._deliver, self._receivers, webhooks), name="webhooks"),
            asyncio.create_task(self._collect_garbage(), name="garbage"),
            asyncio.create_task(self._run(self._close, self._closing_workspaces, workspaces), name="workspaces"),
        ]

    async def stop(self) -> None:
        """Let what trains leave a checkpoint and rest, then stop the loops and the deployments; the next server goes on
        with both. With `leave_running` jobs go on by themselves, and the next server finds them."""
        if not self.settings.leave_running and not self._loops[0].done():
            await self._rest()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self.stepper.close()
        await asyncio.to_thread(self.supervisor.runs.close)
        await self.deliverer.close()
        await self.reconciler.stop_all()
        await self.fetching.close()
        await self.contents.close()
        await self.http.aclose()
        self.database.close()
        self.data_dir.unlock()

    async def _rest(self) -> None:
        """Until nothing trains any more, or the time of grace is over: then the next server finds it still pausing."""
        self.supervisor.stopping = True
        deadline = time.monotonic() + GRACE_SECONDS + 5
        if await self.jobs.pause_all():
            log.info("jobs leave a checkpoint and rest until the next start; --leave-running lets them go on")
        while time.monotonic() < deadline:
            if not await self.jobs.pause_all():  # once more: a claim may have been under way
                return
            await asyncio.sleep(BUSY_SECONDS / 2)

    async def not_ready(self) -> str | None:
        """Why requests cannot be answered; None when the database answers."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self.database.read(lambda tx: tx.connection.scalar(select(1)))
        except Exception as error:  # noqa: BLE001 the edge: whatever keeps the database from answering
            log.warning("the database does not answer: %s", error)
            return f"the database does not answer ({type(error).__name__})"
        return None

    @property
    def loops_alive(self) -> dict[str, bool]:
        """Whether each loop still runs."""
        return {loop.get_name(): not loop.done() for loop in self._loops}

    def _stir_jobs(self) -> None:
        """Jobs of either kind have changed."""
        self._stirred.set()
        self._step.set()
        self._tell()

    def _moved(self, item: _Item) -> None:
        """A turn has moved a job, or a step of one."""
        self._tell(getattr(item, "job_id", item.id))

    def _tell(self, job_id: str | None = None) -> None:
        """Who watches the job (None: any) hears of it, and webhooks may be owed something."""
        self.live.stir(job_id)
        self._deliver.set()

    async def _jobs(self) -> tuple[bool, Sequence[_Item]]:
        """Let jobs go on as devices come free; whether any did, and those that run."""
        claimed = 0
        if not self.supervisor.stopping and await self.database.read(scheduler.anybody_waits):
            claimed = await self.database.write(scheduler.claim, self.devices.names)
            crash_at("claim-after-commit")
        return claimed > 0, await self.supervisor.active()

    async def _deployments(self) -> tuple[bool, Sequence[_Item]]:
        """All deployments: each is held against what is wanted."""
        return False, await self.reconciler.all()

    async def _pending_models(self) -> tuple[bool, Sequence[_Item]]:
        """The models whose checkpoints are to be read."""
        return False, await self.analysis.pending()

    async def _receivers(self) -> tuple[bool, Sequence[_Item]]:
        """The webhooks to which something is due."""
        return False, await self.deliverer.receivers()

    async def _closing_workspaces(self) -> tuple[bool, Sequence[_Item]]:
        """The workspaces that are being deleted."""
        return False, await self.cleanup.all()

    async def _collect_garbage(self) -> None:
        """Delete what nothing needs any more, now and then."""
        while True:
            await asyncio.sleep(GARBAGE_SECONDS)
            try:
                log.info("garbage: %s", (await self.garbage.collect()).model_dump_json())
                self.failures.pop("garbage", None)
            except Exception as error:  # the edge: one failed round must not end the loop
                self.failures["garbage"] = f"{type(error).__name__}: {error}"
                log.exception("garbage: a round failed; the next one is in %d s", GARBAGE_SECONDS)

    async def _run(self, stirred: asyncio.Event, look: Look, turns: _Turns) -> None:
        """Look, take a turn with each item, and wait until something is stirred or it is time to look again."""
        while True:
            stirred.clear()
            try:
                moved, items = await look()
            except Exception:  # the edge: one failed look must not end the loop
                log.exception("%ss: looking for work failed", turns.noun)
                await asyncio.sleep(IDLE_SECONDS)
                continue
            if moved:
                self._tell()
            if await turns.take(items) or moved:
                if turns.noun != "step":
                    self._reconcile.set()  # a job that ended may have made an adapter
                continue
            await _wait(stirred, BUSY_SECONDS * slowness(len(items)) if items else IDLE_SECONDS)


def refuse_twins(settings: Settings) -> None:
    """ServerStartError when another server has the data directory, or its keys cannot be used: said before anything
    is started."""
    data_dir = DataDir(settings.data_dir)
    data_dir.lock()
    try:
        Keys(settings, data_dir)
    finally:
        data_dir.unlock()


class _Turns:
    """Takes a turn with each item; one that raises is logged, backed off and shown, and never stops the others."""

    def __init__(
        self,
        noun: str,
        turn: Callable[[Any], Awaitable[bool]],
        failures: dict[str, str],
        told: Callable[[_Item], None] = lambda _: None,
    ) -> None:
        self.noun = noun
        self.turn = turn
        self.failures = failures
        self.told = told
        """Hears of each item that has moved."""
        self._next: dict[str, tuple[float, float]] = {}
        """By item: when it may be tried again, and how long it waited last."""

    async def take(self, items: Sequence[_Item]) -> bool:
        """Whether any item moved."""
        moved = await asyncio.gather(*(self._one(item) for item in items))
        return any(moved)

    async def _one(self, item: _Item) -> bool:
        not_before, waited = self._next.get(item.id, (0.0, 0.0))
        if time.monotonic() < not_before:
            return False
        try:
            moved = await self.turn(item)
        except Exception as error:  # the edge: one item's turn
            wait = min(LONGEST_BACKOFF_SECONDS, max(0.5, waited * 2))
            self._next[item.id] = (time.monotonic() + wait, wait)
            self.failures[f"{self.noun} {item.id}"] = f"{type(error).__name__}: {error}"
            log.exception("%s %s: its turn failed; next try in %.1f s", self.noun, item.id, wait)
            return False
        if self._next.pop(item.id, None):
            self.failures.pop(f"{self.noun} {item.id}", None)
        if moved:
            self.told(item)
        return moved


async def _wait(stirred: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stirred.wait()
    except TimeoutError:
        return
