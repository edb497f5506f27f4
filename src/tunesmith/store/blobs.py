"""Bytes on disk, named by their digest: written once, never changed, shared by everything that holds them.

Layout: `blobs/ab/abcdef...`, files 0400; `blobs/incoming/` for bytes on their way in or out, emptied at each start.

A blob that no row refers to yet is *held*: a writer holds its own from `keep` until its `with` block ends, so write the
row inside the block. Garbage collection deletes within a `sweep`, which spares all that was held since it began.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final, Self

from tunesmith.errors import DiskFull
from tunesmith.store.filesets import StoredFile
from tunesmith.store.ids import hexadecimal

READ_ONLY: Final = 0o400
PRIVATE: Final = 0o700
INCOMING: Final = "incoming"
RESERVE_BYTES: Final = 64 << 20
"""Stays free for the database and the logs: an upload that would take it is refused."""
WRITE_AT_ONCE: Final = 512
"""Chunks in one call to the system, which allows 1,024."""
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """A blob on disk."""

    digest: str
    size: int
    links: int
    """Names that the bytes have on disk: 1 = the blob's alone."""


class Blobs:
    """All bytes of one data directory. Every method may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / INCOMING
        shutil.rmtree(self.incoming, ignore_errors=True)  # what a killed server left half-written
        self.incoming.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        self._lock = Lock()
        self._held: Counter[str] = Counter()
        self._sweeps: list[set[str]] = []

    def path(self, digest: str) -> Path:
        """Where the bytes of that digest are, or would be."""
        return self.root / digest[:2] / digest

    def check_room(self, size: int) -> None:
        """DiskFull when `size` more bytes would not leave `RESERVE_BYTES` free."""
        free = shutil.disk_usage(self.root).free
        if size + RESERVE_BYTES > free:
            raise DiskFull(
                f"no room left in {self.root} ({free:,} bytes free, of which {RESERVE_BYTES:,} stay free; "
                f"{size:,} more are needed): free some space, for example with `tunesmith gc`, and retry"
            )

    def writer(self) -> BlobWriter:
        """Takes bytes in; nothing is visible before `keep`."""
        return BlobWriter(self)

    def adopt(self, source: Path, digest: str) -> None:
        """Make an existing file the blob of `digest` without copying; its writer vouches for the digest.

        Do so within `hold`, together with the row that refers to it.
        """
        target = self.path(digest)
        if not target.exists():
            source.chmod(READ_ONLY)
            with suppress(FileExistsError):
                self._enter(source, target, move=False)

    def link(self, files: Iterable[StoredFile], directory: Path) -> None:
        """Lay the files out under `directory` as read-only links to their blobs. Safe to repeat."""
        for file in files:
            assert file.digest is not None, "only fetched files have bytes to link to"
            target = directory / file.path
            target.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
            if target.exists():
                continue
            try:
                target.hardlink_to(self.path(file.digest))
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                    raise
                target.symlink_to(self.path(file.digest))

    def all(self) -> Iterator[BlobFacts]:
        """Every blob there is, in no order."""
        for directory in self.root.iterdir():
            if len(directory.name) != 2:
                continue
            for path in directory.iterdir():
                with suppress(FileNotFoundError):
                    facts = path.stat()
                    yield BlobFacts(path.name, facts.st_size, facts.st_nlink)

    @contextmanager
    def hold(self, digests: Iterable[str]) -> Iterator[None]:
        """Keep these blobs from being collected until the block ends."""
        taken = list(digests)
        self._take(taken)
        try:
            yield
        finally:
            self._give_back(taken)

    @contextmanager
    def sweep(self) -> Iterator[Sweep]:
        """Begin before asking what is referred to: whatever is held from now on is spared."""
        with self._lock:
            spared = set(self._held)
            self._sweeps.append(spared)
        try:
            yield Sweep(self, spared)
        finally:
            with self._lock:
                self._sweeps.remove(spared)

    def _take(self, digests: Sequence[str]) -> None:
        with self._lock:
            self._held.update(digests)
            for spared in self._sweeps:
                spared.update(digests)

    def _give_back(self, digests: Sequence[str]) -> None:
        with self._lock:
            self._held.subtract(digests)
            for digest in digests:
                if not self._held[digest]:
                    del self._held[digest]

    def _enter(self, source: Path, target: Path, *, move: bool) -> None:
        """Give read-only bytes their place; FileExistsError when it is taken and they are not moved.

        Each call to the system costs a thread its turn, so there are few.
        """
        give = os.rename if move else os.link
        try:
            give(source, target)
        except FileNotFoundError:  # the first blob of its directory
            with suppress(FileExistsError):
                target.parent.mkdir(mode=PRIVATE)
                _flush_directory(self.root)
            give(source, target)
        _flush_directory(target.parent)


class Sweep:
    """One round of garbage collection."""

    def __init__(self, blobs: Blobs, spared: set[str]) -> None:
        self._blobs = blobs
        self._spared = spared

    def drop(self, digest: str) -> bool:
        """Delete a blob; False when it is gone already, or was held since the sweep began."""
        blobs = self._blobs
        doomed = blobs.incoming / hexadecimal(16)
        with blobs._lock:  # noqa: SLF001 - the two are one mechanism
            if digest in self._spared:
                return False
            try:
                blobs.path(digest).rename(doomed)  # deleting a large file takes long; nobody should wait for it
            except FileNotFoundError:
                return False
        doomed.unlink()
        return True


class BlobWriter:
    """One file on its way in: write bytes, then `keep` or leave the `with` block to forget them.

    May be written to from another thread than the one that leaves the block.
    """

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.size = 0
        self._hash = hashlib.sha256()
        self._path = blobs.incoming / hexadecimal(16)
        self._file: int | None = None
        self._closed = False
        self._lock = Lock()
        self._kept: str | None = None
        self._look_again_at = 0
        """Size from which the room left on the disk is looked at again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                os.close(self._file)
                self._file = None
                self._path.unlink(missing_ok=True)
        if self._kept:
            self.blobs._give_back([self._kept])  # noqa: SLF001 - the two are one mechanism

    def write(self, *chunks: bytes) -> None:
        """Append; DiskFull when there is no room."""
        with self._lock:
            if self.size >= self._look_again_at:
                self.blobs.check_room(0)
                self._look_again_at = self.size + RESERVE_BYTES // 4
            try:
                file = self._opened()
                for first in range(0, len(chunks), WRITE_AT_ONCE):
                    _write(file, chunks[first : first + WRITE_AT_ONCE])
            except OSError as error:
                raise self._reason(error) from error
            for chunk in chunks:
                self._hash.update(chunk)
                self.size += len(chunk)

    def keep(self) -> str:
        """Flush to disk, give the bytes their place, and return their digest, which is held until the block ends."""
        with self._lock:
            digest = self._hash.hexdigest()
            self.blobs._take([digest])  # noqa: SLF001 - the two are one mechanism
            self._kept = digest
            target = self.blobs.path(digest)
            if target.exists():
                return digest
            try:
                file = self._opened()
                os.fsync(file)
                self.blobs._enter(self._path, target, move=True)  # noqa: SLF001 - the two are one mechanism
            except OSError as error:
                raise self._reason(error) from error
            os.close(file)
            self._file = None
            return digest

    def _opened(self) -> int:
        if self._closed:
            raise ValueError("the writer was left; nothing more can be written")
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, READ_ONLY)
        return self._file

    def _reason(self, error: OSError) -> Exception:
        if error.errno not in _NO_ROOM:
            return error
        free = shutil.disk_usage(self.blobs.root).free
        return DiskFull(
            f"no room left in {self.blobs.root} ({free:,} bytes free); nothing was stored: free some space, for "
            "example with `tunesmith gc`, and retry"
        )


def _write(file: int, chunks: Sequence[bytes]) -> None:
    """All of the chunks, however often the system takes only a part."""
    left = [memoryview(chunk) for chunk in chunks if chunk]
    while left:
        written = os.writev(file, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def _flush_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
