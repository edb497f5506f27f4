"""What may happen to filesets and their files: create, change, upload, list, read, remove."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, ParamSpec, TypeVar

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.filesets import CreateFileset, Fileset, FilesetFile, LocalStorage, UpdateFileset
from tunesmith.control.contents import Contents
from tunesmith.control.sources.base import Pinned
from tunesmith.control.sources.registry import Sources
from tunesmith.errors import BadRequest, NotFound, Unavailable
from tunesmith.refs import Ref, check_name
from tunesmith.store.blobs import Blobs, BlobWriter
from tunesmith.store.database import Database, Tx
from tunesmith.store.filesets import Snapshot, StoredFile, shown

PATH_LIMIT: Final = 1024
"""Characters of a file's path."""
PORTION: Final = 1 << 20
"""Bytes that are written or read at once; twice as many are in memory, of each file on its way."""
THREADS: Final = 16
"""Files that are worked on at once: they wait for the disk, mostly."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that can be read: its bytes here, or on their way through from a remote storage."""

    file: StoredFile
    snapshot: Snapshot
    path: Path | None
    """Where the bytes are; None while they are in the remote storage only."""

    @property
    def tag(self) -> str:
        """Changes when the bytes do."""
        return self.file.digest or (self.file.tag or "").replace('"', "")


class FilesetService:
    """Named collections of files."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        contents: Contents,
        sources: Sources,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.database = database
        self.blobs = blobs
        self.contents = contents
        self.sources = sources
        self._changed = changed
        """Called when a model's checkpoint is another one and has to be read again."""
        self._threads = ThreadPoolExecutor(THREADS, "files")

    # -- filesets --------------------------------------------------------------------------------------------------

    async def create(self, workspace: str, asked: CreateFileset) -> Fileset:
        """A new fileset: empty, or a view of a remote storage, which is looked up now."""
        if isinstance(asked.storage, LocalStorage):
            raise BadRequest(
                "Creating filesets with local storage is not allowed. Use NGC, HuggingFace, or omit storage to use the "
                "default backend."
            )
        pinned = None
        if asked.storage:
            await self.database.read(_refuse_early, workspace, check_name(asked.name))
            pinned = await self.sources.pin(workspace, asked.storage)
        fileset, snapshot = await self.database.write(create, workspace, asked, pinned)
        if pinned and asked.cache:
            self.contents.start_bringing(snapshot)
        return fileset

    async def get(self, workspace: str, name: str) -> Fileset:
        """The fileset; NotFound without it."""
        return await self.database.read(lambda tx: tx.filesets.get(workspace, name))

    async def page(self, workspace: str, asked: PageRequest) -> Page[Fileset]:
        """One page of a workspace's filesets."""
        return await self.database.read(lambda tx: tx.filesets.page(workspace, asked))

    async def update(self, workspace: str, name: str, asked: UpdateFileset) -> Fileset:
        """The fileset with other fields; NotFound without it."""
        return await self._change(update, Ref(workspace, name), asked)

    async def delete(self, workspace: str, name: str) -> Fileset:
        """Take the fileset out and return it; jobs and deployments that started with it keep their files."""
        return await self._change(delete, Ref(workspace, name))

    # -- files -----------------------------------------------------------------------------------------------------

    async def files(self, workspace: str, name: str, path: str, *, with_cache_status: bool) -> list[FilesetFile]:
        """The files under a directory, or the one of that path; nothing for an unknown path."""
        ref = Ref(workspace, name)
        await self.contents.refresh(ref)
        snapshot = await self.database.read(lambda tx: tx.filesets.snapshot(ref, path))
        tell = with_cache_status or snapshot.storage is None
        status = self.contents.cache_status
        return [shown(workspace, name, file, status(snapshot, file) if tell else None) for file in snapshot.files]

    async def upload(
        self, workspace: str, name: str, path: str, chunks: AsyncIterator[bytes], length: int | None = None
    ) -> FilesetFile:
        """Take in a file: nobody sees it before all its bytes are on disk; cut off, the old file stays.

        `length` is what the sender announced; None = not announced. BadRequest, Conflict and DiskFull are said before
        a byte is read where they can be known.
        """
        path = checked_path(path)
        if length is None or length > PORTION:  # else it is said soon enough by `put`
            await self.database.read(lambda tx: tx.filesets.check_writable(workspace, name, path) and None)
        self.blobs.check_room(length or 0)
        with self.blobs.writer() as writer:
            digest = await self._take_in(writer, chunks)
            if length is not None and writer.size != length:
                raise BadRequest(f"the body has {writer.size} bytes, but Content-Length says {length}; send it again")
            return await self._change(put, Ref(workspace, name), path, digest, writer.size)

    async def open(self, workspace: str, name: str, path: str) -> OpenFile:
        """A file to be read; NotFound without it."""
        if path.endswith("/"):
            raise NotFound(f"File '{path[:80]}' not found in fileset '{workspace}/{name}': it would be a directory")
        file, snapshot = await self.database.read(lambda tx: tx.filesets.file(Ref(workspace, name), checked_path(path)))
        return self.opened(file, snapshot)

    def opened(self, file: StoredFile, snapshot: Snapshot) -> OpenFile:
        """A file of a snapshot, to be read."""
        here = self.blobs.path(file.digest) if file.digest else None
        if here is not None and snapshot.storage is not None and not here.exists():  # dropped from the cache
            here = None
        return OpenFile(file, snapshot, here)

    async def stream(self, opened: OpenFile, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes `start` to `stop` in chunks, the next one read while this one is sent."""
        if opened.path is None:
            async for chunk in self.contents.stream(opened.snapshot, opened.file, start, stop):
                yield chunk
            return
        try:
            if stop - start <= PORTION:
                yield await self._run(_part, opened.path, start, stop - start)
                return
            file = await self._run(os.open, opened.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # overwritten or removed, and collected, since it was looked up
            name = f"'{opened.file.path}' of fileset '{opened.snapshot.fileset}'"
            raise Unavailable(f"File {name} was replaced or removed just now; ask again") from None
        reading = self._threads.submit(os.pread, file, PORTION, start)
        try:
            while start < stop:
                chunk = await asyncio.wrap_future(reading)
                assert chunk, f"{opened.path} is shorter than its size in the database"
                chunk = chunk[: stop - start]
                start += len(chunk)
                if start < stop:
                    reading = self._threads.submit(os.pread, file, PORTION, start)
                yield chunk
        finally:
            reading.add_done_callback(lambda _: os.close(file))  # not while a thread still reads from it

    async def remove(self, workspace: str, name: str, path: str) -> FilesetFile:
        """Take a file out of its fileset; NotFound without it."""
        return await self._change(remove, Ref(workspace, name), checked_path(path))

    # -- below -----------------------------------------------------------------------------------------------------

    async def _take_in(self, writer: BlobWriter, chunks: AsyncIterator[bytes]) -> str:
        """The digest of all chunks, once they are on disk. While a portion is written the next one is received."""
        waiting: list[bytes] = []
        held = 0
        writing: asyncio.Future[None] | None = None
        async for chunk in chunks:
            waiting.append(chunk)
            held += len(chunk)
            if held >= PORTION:
                if writing:
                    await writing
                writing = self._run(writer.write, *waiting)
                waiting, held = [], 0
        if writing:
            await writing
        return await self._run(_finish, writer, waiting)

    async def _change(self, verb: Callable[..., tuple[T, bool]], *args: object) -> T:
        """Run a verb that also says whether a model's checkpoint is another one now."""
        result, stale = await self.database.write(verb, *args)
        if stale:
            self._changed()
        return result

    def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        return asyncio.wrap_future(self._threads.submit(work, *args, **kwargs))


def create(tx: Tx, workspace: str, asked: CreateFileset, pinned: Pinned | None) -> tuple[Fileset, Snapshot]:
    """One transaction: the fileset, and the files that its remote storage has."""
    fileset = tx.filesets.create(workspace, asked, pinned.storage if pinned else None)
    ref = Ref(workspace, fileset.name)
    if pinned:
        tx.filesets.relist(ref, pinned.files)
    tx.models.fileset_changed(ref)
    return fileset, tx.filesets.snapshot(ref)


def update(tx: Tx, ref: Ref, asked: UpdateFileset) -> tuple[Fileset, bool]:
    """One transaction: the fields, and models over the fileset are read again where its metadata tell of them."""
    fileset = tx.filesets.update(ref.workspace, ref.name, asked)
    return fileset, "metadata" in asked.model_fields_set and tx.models.fileset_changed(ref)


def delete(tx: Tx, ref: Ref) -> tuple[Fileset, bool]:
    """One transaction: the fileset with its files, and models over it say that it is gone."""
    return tx.filesets.drop(ref.workspace, ref.name), tx.models.fileset_changed(ref)


def put(tx: Tx, ref: Ref, path: str, digest: str, size: int) -> tuple[FilesetFile, bool]:
    """One transaction: the file, and models over its fileset are read again. NotFound in a workspace on its way out."""
    tx.filesets.must_exist(ref.workspace)
    return tx.filesets.put(ref.workspace, ref.name, path, digest, size), tx.models.fileset_changed(ref)


def remove(tx: Tx, ref: Ref, path: str) -> tuple[FilesetFile, bool]:
    """One transaction: the file is gone, and models over its fileset are read again."""
    return tx.filesets.remove(ref.workspace, ref.name, path), tx.models.fileset_changed(ref)


def checked_path(path: str) -> str:
    """A relative path without detours; BadRequest says what is wrong with any other."""
    parts = PurePosixPath(path).parts
    if not path or path.endswith("/") or len(path) > PATH_LIMIT or any(len(part.encode()) > 255 for part in parts):
        raise BadRequest(
            f"path: {path[:80]!r} must name a file, with at most {PATH_LIMIT} characters, 255 bytes a part"
        )
    if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise BadRequest(f"path: {path[:80]!r} must be relative, without '.', '..' or empty parts")
    if any(ord(character) < 32 or ord(character) == 127 for character in path) or "\\" in path:
        raise BadRequest(f"path: {path[:80]!r} must not contain control characters or backslashes")
    return path


def _refuse_early(tx: Tx, workspace: str, name: str) -> None:
    """What `create` would refuse, before a remote storage is asked."""
    tx.filesets.must_be_open(workspace)
    tx.filesets.must_be_free(workspace, name)


def _finish(writer: BlobWriter, rest: list[bytes]) -> str:
    writer.write(*rest)
    return writer.keep()


def _part(path: Path, start: int, length: int) -> bytes:
    with path.open("rb", buffering=0) as source:
        source.seek(start)
        return source.read(length)
