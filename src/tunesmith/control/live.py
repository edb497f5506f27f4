"""What happens to one job, as it happens: for whoever watches it.

Nothing is kept for a watcher. Each holds a cursor and asks what has come since, so a slow one costs no memory and a
dropped one goes on where it was. Watchers of one job who stand at the same place share one reading; the loops say when
there is something to read (`stir`), and a slow look finds what nobody tells of, such as lines that a process printed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from zlib import crc32

from tunesmith.api.jobs import JobState
from tunesmith.api.live import KINDS, JobEvent, Kind, MetricPoint
from tunesmith.control.jobs import JobService
from tunesmith.control.logs import logged
from tunesmith.control.tail import gained
from tunesmith.errors import BadRequest, NotFound
from tunesmith.refs import Ref
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database

HEARTBEAT_SECONDS = 15.0
"""Without an event until a watcher is told that there is none."""
SLOW_SECONDS = 1.0
"""Between two looks at a job of which nobody says anything."""
SHORTEST_SECONDS = 0.1
"""Between two readings of one job, however much happens to it."""
POINTS: Final = 500
"""Of all series at once."""
LINES: Final = 200
"""Of a log; where one reading finds so many, there may be more."""
BATCHES: Final = 8
"""Readings kept for watchers who come a little later."""
LONGEST_CURSOR: Final = 8192
_LARGEST: Final = 2**53


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a watcher has seen."""

    job: str
    """End of the job's id."""
    status: str = ""
    """Digest of the last state; "" = none yet."""
    steps: dict[str, int] = field(default_factory=dict)
    """Last step by series."""
    log: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        said = json.dumps([self.job, self.status, self.steps, self.log], separators=(",", ":"))
        return base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, job_id: str) -> Cursor:
        """BadRequest for what is no cursor, and for one of another job."""
        try:
            job, status, steps, log = json.loads(base64.urlsafe_b64decode(text[:LONGEST_CURSOR] + "=="))
            numbers = [*steps.values(), *log.values()]
            whole = all(type(number) is int and 0 <= number < _LARGEST for number in numbers)
        except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
            whole = False
        if not whole or not isinstance(status, str):
            raise BadRequest(
                f"cursor: '{text[:40]}' is not the id of an event of this stream; leave it out to begin anew"
            )
        if job != job_id[-8:]:
            raise BadRequest(
                f"cursor: '{text[:40]}' belongs to another job, which had this name before; leave it out to begin anew"
            )
        return cls(job, status, steps, log)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What came after a cursor."""

    events: Sequence[JobEvent]
    cursor: Cursor
    more: bool = False
    """Whether there is more already."""
    over: bool = False
    """Whether nothing can follow."""


class _Watched:
    """A job that somebody watches."""

    def __init__(self) -> None:
        self.watchers = 0
        self.turn = asyncio.Lock()
        self.read_at = 0.0
        self.version = 0
        """Counts stirs: what gave nothing gives nothing until the next."""
        self.stirred = asyncio.Event()
        self.batches: OrderedDict[tuple[str, tuple[Kind, ...]], tuple[int, _Batch]] = OrderedDict()
        """By the cursor before them, with the version that was read."""

    def stir(self) -> None:
        """There may be something to read."""
        self.version += 1
        self.stirred.set()
        self.stirred = asyncio.Event()

    async def wait(self, version: int) -> None:
        """Until it is stirred after `version`, or it is time to look anyway."""
        stirred = self.stirred
        if self.version != version:
            return
        try:
            async with asyncio.timeout(SLOW_SECONDS):
                await stirred.wait()
        except TimeoutError:
            if self.version == version:
                self.stir()


class Live:
    """Follows jobs for those who watch them."""

    def __init__(self, database: Database, data_dir: DataDir, jobs: JobService) -> None:
        self.database = database
        self.data_dir = data_dir
        self.jobs = jobs
        self.watched: dict[str, _Watched] = {}
        """By the id of a job."""
        self._closed = False

    def stir(self, job_id: str | None = None) -> None:
        """Something has happened to this job; None = to any of them."""
        for each in self.watched.values() if job_id is None else filter(None, [self.watched.get(job_id)]):
            each.stir()

    def close(self) -> None:
        """End every stream at its next event: the server stops."""
        self._closed = True
        self.stir()

    async def follow(
        self, workspace: str, name: str, cursor: str | None = None, kinds: Sequence[Kind] = KINDS
    ) -> AsyncIterator[JobEvent | None]:
        """What has happened to the job since `cursor` (None: ever), and what happens from now on, until its end.

        None in between stands for silence. Without an `end` it stops when the job is deleted and when the server stops.
        NotFound without the job; BadRequest for a cursor that is not this job's.
        """
        job_id = (await self.jobs.state(workspace, name, series=False)).id
        start = Cursor.parse(cursor, job_id) if cursor else Cursor(job_id[-8:])
        return self._follow(Ref(workspace, name), job_id, start, tuple(sorted(set(kinds))))

    async def _follow(
        self, ref: Ref, job_id: str, cursor: Cursor, kinds: tuple[Kind, ...]
    ) -> AsyncIterator[JobEvent | None]:
        watched = self.watched.setdefault(job_id, _Watched())
        watched.watchers += 1
        spoke_at = time.monotonic()
        try:
            while not self._closed:
                version = watched.version
                batch = await self._after(watched, ref, job_id, cursor, kinds)
                for event in batch.events:
                    yield event
                    spoke_at = time.monotonic()
                cursor = batch.cursor
                if batch.over:
                    return
                if time.monotonic() - spoke_at >= HEARTBEAT_SECONDS:
                    yield None
                    spoke_at = time.monotonic()
                if not batch.more:
                    await watched.wait(version)
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                self.watched.pop(job_id, None)

    async def _after(self, watched: _Watched, ref: Ref, job_id: str, cursor: Cursor, kinds: tuple[Kind, ...]) -> _Batch:
        """What came after the cursor: read once for all who stand there."""
        key = (str(cursor), kinds)
        async with watched.turn:
            version, batch = watched.batches.get(key, (-1, None))
            if batch and (batch.events or version == watched.version):
                return batch
            await asyncio.sleep(max(0.0, watched.read_at + SHORTEST_SECONDS - time.monotonic()))
            version = watched.version
            batch = await self._read(ref, job_id, cursor, kinds)
            watched.read_at = time.monotonic()
            watched.batches.pop((str(batch.cursor), kinds), None)  # older: a state may come back, and so may a cursor
            watched.batches[key] = version, batch
            watched.batches.move_to_end(key)
            if len(watched.batches) > BATCHES:
                watched.batches.popitem(last=False)
            return batch

    async def _read(self, ref: Ref, job_id: str, cursor: Cursor, kinds: tuple[Kind, ...]) -> _Batch:
        """The state first: once it is final, nothing can come behind what is read after it."""
        try:
            state = await self.jobs.state(ref.workspace, ref.name, series=False)
            job = await self.database.read(logged, ref)
        except NotFound:
            return _Batch((), cursor, over=True)
        if job_id not in (state.id, job.id):
            return _Batch((), cursor, over=True)
        events: list[JobEvent] = []
        seen, lines, points = cursor, 0, 0
        if "log" in kinds:
            new, log = await asyncio.to_thread(gained, self.data_dir.run(job_id), job, cursor.log)
            cursor, lines = replace(cursor, log=log), len(new)
            if new:
                events.append(JobEvent(event="log", cursor=str(cursor), lines=new))
        if "metrics" in kinds:
            found = await self.database.read(lambda tx: tx.jobs.metrics.since(job_id, seen.steps, POINTS))
            cursor, points = (
                replace(cursor, steps=cursor.steps | {row["series"]: row["step"] for row in found}),
                len(found),
            )
            if found:
                said = [MetricPoint.model_validate(row) for row in found]
                events.append(JobEvent(event="metrics", cursor=str(cursor), points=said))
        if state.status.final:
            if cursor != seen:
                return _Batch(events, cursor, more=True)
            return _Batch([JobEvent(event="end", cursor=str(cursor), state=state)], cursor, over=True)
        if "status" in kinds and (digest := _digest(state)) != cursor.status:
            cursor = replace(cursor, status=digest)
            events.append(JobEvent(event="status", cursor=str(cursor), state=state))
        return _Batch(events, cursor, more=lines >= LINES or points >= POINTS)


def _digest(state: JobState) -> str:
    return f"{crc32(state.model_dump_json().encode()):08x}"
