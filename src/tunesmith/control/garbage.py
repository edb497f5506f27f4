"""Garbage collection: bytes that nothing needs any more, and what is kept of jobs that ended long ago.

Needed is a blob that a fileset holds, that the inputs of a job name whose run is kept, or that a run or deployment
links to. What is held by a writer is spared (see `store/blobs.py`), so collecting while files come in is safe.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from tunesmith.api.filesets import Collected
from tunesmith.errors import ServerStartError
from tunesmith.settings import Settings
from tunesmith.store import needs
from tunesmith.store.blobs import Blobs, Sweep
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database, Tx
from tunesmith.store.ids import now

RETIRED: Final = ("inputs", "checkpoints", "artifact", "data", "storage", "work")
"""Parts of an ended job's run that go, also half-written ones; its plan, events and logs stay."""
YOUNG_SECONDS: Final = 600.0
"""A directory that nobody knows is left alone for so long: it may be a job's that is just being made."""
DAY_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Needed:
    """What the database says of bytes and directories."""

    digests: set[str]
    cached: set[str]
    """Those that only filesets of remote storages hold."""
    jobs: set[str]
    """Ids of all jobs."""
    ended: list[str]
    """Ids of the jobs that ended before the time of retention."""
    deployments: set[str]


@dataclass(slots=True)
class _Count:
    blobs: int = 0
    blob_bytes: int = 0
    runs: int = 0
    run_bytes: int = 0
    leftovers: int = 0
    leftover_bytes: int = 0
    stale: list[str] = field(default_factory=list)
    """Digests of remote files that nobody has read for long."""


class Garbage:
    """Collects within one data directory, one round at a time."""

    def __init__(self, database: Database, blobs: Blobs, data_dir: DataDir, settings: Settings) -> None:
        self.database = database
        self.blobs = blobs
        self.data_dir = data_dir
        self.settings = settings
        self._round = asyncio.Lock()

    async def collect(self, *, dry_run: bool = False) -> Collected:
        """Delete what nothing needs, or with `dry_run` only count it."""
        async with self._round:
            with self.blobs.sweep() as sweep:
                needed = await self.database.read(what_is_needed, self.settings.retention_days)
                count = await asyncio.to_thread(self._retire, needed, dry_run)
                count.stale = await asyncio.to_thread(self._unread, needed.cached)
                files = 0
                if count.stale and not dry_run:
                    files = await self.database.write(lambda tx: tx.filesets.uncache(count.stale))
                    needed = await self.database.read(what_is_needed, self.settings.retention_days)
                spare = needed.digests - (set(count.stale) if dry_run else set())
                await asyncio.to_thread(self._sweep, sweep, spare, count, dry_run)
        return Collected(
            dry_run=dry_run,
            blobs=count.blobs,
            blob_bytes=count.blob_bytes,
            cached_files=len(count.stale) if dry_run else files,
            runs=count.runs,
            run_bytes=count.run_bytes,
            leftovers=count.leftovers,
            leftover_bytes=count.leftover_bytes,
            bytes=count.blob_bytes + count.run_bytes + count.leftover_bytes,
        )

    def _retire(self, needed: Needed, dry_run: bool) -> _Count:
        """Parts of runs whose time is up, and directories that belong to nothing."""
        count = _Count()
        for job_id in needed.ended:
            run = self.data_dir.run(job_id)
            parts = [part for name in RETIRED for part in (run / name, run / f".{name}.tmp") if part.is_dir()]
            count.runs += bool(parts)
            for part in parts:
                count.run_bytes += _delete(part, dry_run)
        young = time.time() - YOUNG_SECONDS
        for top, known in (
            (self.data_dir.root / "runs", needed.jobs),
            (self.data_dir.root / "deployments", needed.deployments),
        ):
            for directory in top.iterdir() if top.is_dir() else ():
                if directory.name not in known and directory.stat().st_mtime < young:
                    count.leftovers += 1
                    count.leftover_bytes += _delete(directory, dry_run)
        return count

    def _unread(self, cached: set[str]) -> list[str]:
        """Remote files that nobody has read for long, by the file system's own word (relatime will do)."""
        oldest = time.time() - self.settings.cache_days * DAY_SECONDS
        stale = []
        for digest in cached:
            try:
                facts = self.blobs.path(digest).stat()
            except FileNotFoundError:
                continue
            if max(facts.st_atime, facts.st_mtime) < oldest and facts.st_nlink == 1:
                stale.append(digest)
        return stale

    def _sweep(self, sweep: Sweep, needed: set[str], count: _Count, dry_run: bool) -> None:
        linked = {Path(target).name for target in _links(self.data_dir)}
        for blob in self.blobs.all():
            if blob.digest in needed or blob.digest in linked or blob.links > 1:
                continue  # one that a run links to: deleting it would free nothing, and a restart may want it
            if dry_run or sweep.drop(blob.digest):
                count.blobs += 1
                count.blob_bytes += blob.size


def collect_alone(settings: Settings, *, dry_run: bool = False) -> Collected | None:
    """A round on a data directory that no server has; None when one has it, or there is no such directory."""
    if not settings.data_dir.is_dir():
        return None
    data_dir = DataDir(settings.data_dir)
    try:
        data_dir.lock()
    except ServerStartError:
        return None
    try:
        database = Database(settings.database_url or data_dir.database)
        try:
            return asyncio.run(Garbage(database, Blobs(data_dir.blobs), data_dir, settings).collect(dry_run=dry_run))
        finally:
            database.close()
    finally:
        data_dir.unlock()


def what_is_needed(tx: Tx, retention_days: int) -> Needed:
    """One transaction: every digest that a row refers to, and which jobs are over."""
    ended = needs.ended_before(tx.connection, now() - timedelta(days=retention_days))
    pinned = needs.input_digests(tx.connection, without=set(ended))
    return Needed(
        digests=tx.filesets.digests() | tx.versions.digests() | pinned,
        cached=tx.filesets.cached() - pinned,
        jobs=needs.job_ids(tx.connection),
        ended=ended,
        deployments={deployment.id for deployment in tx.deployments.all()},
    )


def _links(data_dir: DataDir) -> Iterator[str]:
    """Where the links of runs and deployments lead that are not hard: made where hard ones could not be."""
    for top in ("runs", "deployments"):
        for folder, _, names in os.walk(data_dir.root / top):
            for name in names:
                path = Path(folder, name)
                if path.is_symlink():
                    yield str(path.readlink())


def _delete(directory: Path, dry_run: bool) -> int:
    """The bytes that go with a directory: a file that others link to goes on taking its own."""
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            facts = Path(folder, name).lstat()
            size += facts.st_size if facts.st_nlink == 1 else 0
    if not dry_run:
        shutil.rmtree(directory, ignore_errors=True)
    return size
