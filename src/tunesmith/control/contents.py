"""The bytes of files, wherever they lie: in the platform's own blobs, or in a remote storage that blobs cache."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tunesmith.api.filesets import CacheStatus, RemoteStorage, S3Storage
from tunesmith.control.sources.base import CHUNK, Busy, Interrupted, Pinned
from tunesmith.control.sources.fetch import Fetch, Mismatch
from tunesmith.control.sources.registry import Sources
from tunesmith.errors import NotFound, TunesmithError
from tunesmith.refs import Ref
from tunesmith.store.blobs import Blobs
from tunesmith.store.database import Database, Tx
from tunesmith.store.filesets import Snapshot, StoredFile
from tunesmith.store.partials import Partial, Partials

log = logging.getLogger(__name__)

LATER_SECONDS = (5.0, 15.0, 30.0)
"""Pauses after which a storage that failed is asked again, for a file of a whole fileset that somebody waits for."""
AT_ONCE = 4
"""Files that are fetched side by side, over all who ask for whole filesets."""

Identity = tuple[str, str, str, str, int]
"""Of a remote file at one version: workspace (whose secrets open it), storage, path, tag, size."""


@dataclass(slots=True)
class Progress:
    """How far the fetch of a fileset is; changes while it runs."""

    total_files: int = 0
    """Files to fetch; those that were here do not count."""
    total_bytes: int = 0
    downloaded_files: int = 0
    current_file: str = ""
    done_bytes: int = 0
    running: set[Fetch] = field(default_factory=set)

    @property
    def downloaded_bytes(self) -> int:
        """Of all files, those under way included."""
        return self.done_bytes + sum(fetch.position for fetch in self.running)


class Contents:
    """Reads parts of files, streams and fetches whole ones."""

    def __init__(self, blobs: Blobs, sources: Sources, database: Database) -> None:
        self.blobs = blobs
        self.sources = sources
        self.database = database
        self.partials = Partials(blobs)
        self._fetches: dict[Identity, Fetch] = {}
        self._wanted: Counter[Identity] = Counter()
        """Files that somebody waits for, whether their fetch has begun or not."""
        self._lanes = asyncio.Semaphore(AT_ONCE)
        self._background: set[asyncio.Task[None]] = set()

    async def read(self, snapshot: Snapshot, file: StoredFile, start: int = 0, length: int | None = None) -> bytes:
        """Some bytes of a file (None = to its end): from its blob, else from the remote storage by Range."""
        stop = file.size if length is None else start + length
        async with aclosing(self.stream(snapshot, file, start, stop)) as chunks:  # type: ignore[type-var]
            return b"".join([chunk async for chunk in chunks])

    async def stream(
        self, snapshot: Snapshot, file: StoredFile, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes `start` to `stop` (None = to its end) in chunks; a whole remote file is kept on its way through.

        What can go wrong with a remote storage is raised before the first chunk where possible: see `Sources.read`.
        """
        stop = file.size if stop is None else min(stop, file.size)
        if digest := self._held(snapshot, file):
            path = self.blobs.path(digest)
            while start < stop:
                chunk = await asyncio.to_thread(_part, path, start, min(CHUNK, stop - start))
                start += len(chunk)
                yield chunk
        elif start == 0 and stop == file.size:
            async with self._joined(snapshot, file) as fetch, aclosing(fetch.follow()) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    yield chunk
        else:
            remote = self.sources.read(_workspace(snapshot), _storage(snapshot), file, start, stop)
            async with aclosing(remote) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    yield chunk

    async def bring(self, snapshot: Snapshot, progress: Progress | None = None) -> Snapshot:
        """The snapshot with every file in the blobs and its digest known.

        Goes on where an earlier fetch was cut; a file that others are fetching is fetched once. What can go wrong:
        see `Sources.read`, and Mismatch, DiskFull.
        """
        if snapshot.storage is None or all(self._held(snapshot, file) for file in snapshot.files):
            return snapshot
        with ExitStack() as held:
            here = await self._already_here(snapshot, held)
            missing = [file for file in snapshot.files if file.path not in here]
            here.update(await self._bring_all(snapshot, missing, progress or Progress(), held))
        return replace(snapshot, files=tuple(replace(file, digest=here[file.path]) for file in snapshot.files))

    def start_bringing(self, snapshot: Snapshot) -> None:
        """`bring`, in the background; a failure is logged. Ends with the server: the next reader goes on with it."""

        async def run() -> None:
            try:
                await self.bring(snapshot)
            except TunesmithError as error:
                log.warning("fileset %s was not fetched: %s", snapshot.fileset, error.message)

        task = asyncio.create_task(run(), name=f"cache {snapshot.fileset}")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def refresh(self, ref: Ref) -> bool:
        """List again what a storage without versions (S3) holds; whether the fileset's files changed.

        Any other storage, and the platform's own, is as it is known.
        """
        snapshot = await self.database.read(lambda tx: tx.filesets.snapshot(ref))
        if not isinstance(snapshot.storage, S3Storage):
            return False
        pinned = await self.sources.pin(ref.workspace, snapshot.storage)
        known = {(file.path, file.tag, file.size) for file in snapshot.files}
        if known == {(file.path, file.tag, file.size) for file in pinned.files}:
            return False
        return await self.database.write(_relist, ref, pinned)

    def cache_status(self, snapshot: Snapshot, file: StoredFile) -> CacheStatus:
        """Whether the bytes are here; `not_cacheable` for files that are nowhere else."""
        if snapshot.storage is None:
            return "not_cacheable"
        if file.digest:
            return "cached"
        identity = self._identity(snapshot, file)
        return "caching" if identity in self._wanted or identity in self._fetches else "not_cached"

    async def close(self) -> None:
        """Stop fetching; what is here so far is kept and gone on with."""
        running = [*self._background, *(fetch.task for fetch in self._fetches.values())]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.sources.close()

    # -- one file --------------------------------------------------------------------------------------------------

    async def _bring_all(
        self, snapshot: Snapshot, missing: list[StoredFile], progress: Progress, held: ExitStack
    ) -> dict[str, str]:
        """By path, the digests of files that were elsewhere, which are `held` from the moment they are here."""
        progress.total_files = len(missing)
        progress.total_bytes = sum(file.size for file in missing)
        wanted = Counter(self._identity(snapshot, file) for file in missing)
        self.blobs.check_room(progress.total_bytes - sum(self.partials.size(*identity) for identity in wanted))
        self._wanted += wanted
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {file.path: group.create_task(self._bring(snapshot, file, progress, held)) for file in missing}
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            self._wanted -= wanted
        return {path: task.result() for path, task in tasks.items()}

    async def _bring(self, snapshot: Snapshot, file: StoredFile, progress: Progress, held: ExitStack) -> str:
        """The digest of a file, once it is here; patient with a storage that is away for a minute."""
        async with self._lanes:
            for pause in (*LATER_SECONDS, None):
                try:
                    digest = await self._fetched(snapshot, file, progress)
                    break
                except (Interrupted, Busy, Mismatch) as error:
                    if pause is None:
                        raise
                    log.warning("%s; trying again in %g s", error.message, pause)
                    await asyncio.sleep(pause)
        held.enter_context(self.blobs.hold([digest]))
        progress.done_bytes += file.size
        progress.downloaded_files += 1
        return digest

    async def _fetched(self, snapshot: Snapshot, file: StoredFile, progress: Progress) -> str:
        progress.current_file = file.path
        async with self._joined(snapshot, file) as fetch:
            progress.running.add(fetch)
            try:
                return await fetch.done()
            finally:
                progress.running.discard(fetch)

    @asynccontextmanager
    async def _joined(self, snapshot: Snapshot, file: StoredFile) -> AsyncIterator[Fetch]:
        """The fetch of a file, begun if there is none; stopped when nobody is left who wants it."""
        identity = self._identity(snapshot, file)
        while (fetch := self._fetches.get(identity)) and (fetch.task.done() or fetch.task.cancelling()):
            await asyncio.wait([fetch.task])
            if self._fetches.get(identity) is fetch:
                del self._fetches[identity]
        if fetch is None:
            fetch = self._fetches[identity] = self._begin(snapshot, file, identity)
        fetch.filesets.add(snapshot.fileset)
        fetch.waiting += 1
        try:
            yield fetch
        finally:
            fetch.waiting -= 1
            if not fetch.waiting:
                fetch.task.cancel()
                await asyncio.wait([fetch.task])
                if self._fetches.get(identity) is fetch:
                    del self._fetches[identity]

    def _begin(self, snapshot: Snapshot, file: StoredFile, identity: Identity) -> Fetch:
        async def keep(partial: Partial, digest: str) -> Path:
            with self.blobs.hold([digest]):
                await asyncio.to_thread(self.blobs.adopt, partial.path, digest)
                for fileset in sorted(fetch.filesets):
                    await self.database.write(_note, Ref.unchecked(fileset), [(file, digest)])
            return self.blobs.path(digest)

        workspace, storage = _workspace(snapshot), _storage(snapshot)
        fetch = Fetch(
            file,
            open_partial=lambda: self.partials.open(*identity),
            read=lambda start: self.sources.read(workspace, storage, file, start),
            keep=keep,
        )
        return fetch

    async def _already_here(self, snapshot: Snapshot, held: ExitStack) -> dict[str, str]:
        """By path, digests of files whose bytes are here: as noted meanwhile, or as the storage named them."""
        ref = Ref.unchecked(snapshot.fileset)
        noted = await self.database.read(_noted, ref)
        here, found = {}, []
        for file in snapshot.files:
            digest = self._held(snapshot, file) or noted.get((file.path, file.tag))
            said = (file.tag or "").partition("sha256:")[2]
            if digest is None and said and self.blobs.path(said).exists():
                digest = said
                found.append((file, digest))
            if digest:
                held.enter_context(self.blobs.hold([digest]))  # before the look, so that it stays true
                if self.blobs.path(digest).exists():
                    here[file.path] = digest
        if found:
            await self.database.write(_note, ref, found)
        return here

    def _held(self, snapshot: Snapshot, file: StoredFile) -> str | None:
        """The digest of a file whose bytes are here. Those of a remote file may have been dropped from the cache."""
        if snapshot.storage is None:
            assert file.digest is not None, f"{snapshot.fileset}: '{file.path}' has neither bytes nor a storage"
            return file.digest
        return file.digest if file.digest and self.blobs.path(file.digest).exists() else None

    def _identity(self, snapshot: Snapshot, file: StoredFile) -> Identity:
        return _workspace(snapshot), _storage(snapshot).model_dump_json(), file.path, file.tag or "", file.size


def _note(tx: Tx, ref: Ref, files: list[tuple[StoredFile, str]]) -> None:
    """One transaction: these files are here now."""
    for file, digest in files:
        tx.filesets.fetched(ref, file, digest)


def _relist(tx: Tx, ref: Ref, pinned: Pinned) -> bool:
    """One transaction: the files that are there now, and models over them are read again. Whether that was news."""
    changed = tx.filesets.relist(ref, pinned.files)
    if changed:
        tx.models.fileset_changed(ref)
    return changed


def _noted(tx: Tx, ref: Ref) -> dict[tuple[str, str | None], str]:
    """What has been fetched of a fileset, by path and tag; nothing when it is gone."""
    try:
        snapshot = tx.filesets.snapshot(ref)
    except NotFound:
        return {}
    return {(file.path, file.tag): file.digest for file in snapshot.files if file.digest}


def _workspace(snapshot: Snapshot) -> str:
    return Ref.unchecked(snapshot.fileset).workspace


def _storage(snapshot: Snapshot) -> RemoteStorage:
    assert snapshot.storage is not None
    return snapshot.storage


def _part(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as source:
        source.seek(start)
        return source.read(length)
