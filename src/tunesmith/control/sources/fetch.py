"""One remote file on its way into the blobs: any number may wait for it, or read along while it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import ParamSpec, TypeVar

from tunesmith.control.sources.base import CHUNK
from tunesmith.errors import Upstream
from tunesmith.store.filesets import StoredFile
from tunesmith.store.partials import Partial

P = ParamSpec("P")
T = TypeVar("T")


class Mismatch(Upstream):
    """What came is not what the storage had said; it was thrown away."""


class Fetch:
    """A task that fetches a file; its result is the digest. Stopped, it leaves what it has for the next one."""

    def __init__(
        self,
        file: StoredFile,
        open_partial: Callable[[], Partial],
        read: Callable[[int], AsyncIterator[bytes]],
        keep: Callable[[Partial, str], Awaitable[Path]],
    ) -> None:
        self.file = file
        self.position = 0
        """Bytes that are here."""
        self.waiting = 0
        """How many want it."""
        self.filesets: set[str] = set()
        """For whom: `workspace/name`."""
        self._open_partial = open_partial
        self._read = read
        self._keep = keep
        self._path: Path | None = None
        self._moved = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"fetch {file.path}")
        self.task.add_done_callback(self._ended)

    async def done(self) -> str:
        """The digest, once all is here; what went wrong otherwise."""
        return await asyncio.shield(self.task)

    async def follow(self) -> AsyncIterator[bytes]:
        """The bytes as they come; the last ones not before all of it was found to be right."""
        await self._beyond(0)
        assert self._path is not None
        with self._path.open("rb") as source:  # stays readable when the file gets its place among the blobs
            at, last = 0, max(0, self.file.size - CHUNK)
            while at < last:
                here = min(await self._beyond(at), last)
                chunk = await asyncio.to_thread(source.read, min(CHUNK, here - at))
                at += len(chunk)
                yield chunk
            await self.done()
            while chunk := await asyncio.to_thread(source.read, CHUNK):
                yield chunk

    async def _beyond(self, at: int) -> int:
        """The position, once it is behind `at` or all is here; what went wrong otherwise."""
        while self.position <= at and not self.task.done():
            self._moved.clear()
            await self._moved.wait()
        if self.position <= at:
            await self.done()
        return self.position

    def _ended(self, task: asyncio.Task[str]) -> None:
        self._moved.set()
        if not task.cancelled():
            task.exception()  # heard by those who wait, of whom there may be none any more

    async def _run(self) -> str:
        partial = await _finished(self._open_partial)
        with partial:
            if partial.size > self.file.size:
                partial.start_again()
            self._path = partial.path
            self._reached(partial.size)
            async with aclosing(self._read(partial.size)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    await _finished(partial.append, chunk)
                    self._reached(partial.size)
            await _finished(self._check, partial)
            self._path = await self._keep(partial, partial.digest)
            partial.forget()  # no wait after this: who finds the task running finds the file
            return partial.digest

    def _reached(self, position: int) -> None:
        self.position = position
        self._moved.set()

    def _check(self, partial: Partial) -> None:
        """Mismatch when the storage's own digest is another; then nothing stays. Else the bytes are on disk."""
        kind, _, said = (self.file.tag or "").partition(":")
        found = {"sha256": lambda: partial.digest, "git": partial.git_id}.get(kind, lambda: said)()
        if found != said:
            partial.forget()
            raise Mismatch(
                f"Storage backend unavailable: '{self.file.path}' came with {kind} {found}, where its storage had said "
                f"{said}; the bytes were thrown away, ask again"
            )
        partial.flush()


async def _finished(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`asyncio.to_thread`, which when cancelled waits for the thread: nobody may close a file under it."""
    work = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
