"""Remote files on their way into the blobs: kept as far as they came, so that a cut stream or a killed server costs
nothing but the bytes that were under way.

Layout: `partial/<key>` beside the blobs, one file per remote file and version. A write says where its bytes belong, so
that a write that outlived its owner puts there what belongs there anyway.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO, Self

from tunesmith.errors import DiskFull
from tunesmith.store.blobs import Blobs

PARTIAL = "partial"
KEPT_SECONDS = 7 * 24 * 3600.0
"""Partial files that nobody has gone on with for this long are dropped when the server starts."""
CHUNK = 1 << 20


class Partials:
    """All remote files that are half here."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.root = blobs.root / PARTIAL
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        oldest = time.time() - KEPT_SECONDS
        for leftover in self.root.iterdir():
            if leftover.stat().st_mtime < oldest:
                leftover.unlink(missing_ok=True)

    def open(self, *identity: object) -> Partial:
        """What is here of the file that `identity` names. Blocking: what is here is read once, for its digest."""
        return Partial(self._path(identity))

    def size(self, *identity: object) -> int:
        """How many bytes of it are here."""
        try:
            return self._path(identity).stat().st_size
        except FileNotFoundError:
            return 0

    def _path(self, identity: tuple[object, ...]) -> Path:
        return self.root / hashlib.sha256("\n".join(map(str, identity)).encode()).hexdigest()


class Partial:
    """One remote file, as far as it is here. Blocking; one owner at a time, which closes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and path.stat().st_nlink > 1:  # a blob already: a server was killed between the two
            path.unlink()
        path.touch(mode=0o600)
        self._file: BinaryIO = path.open("r+b", buffering=0)
        self.size = 0
        self._sha256 = hashlib.sha256()
        while chunk := self._file.read(CHUNK):
            self._sha256.update(chunk)
            self.size += len(chunk)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, chunk: bytes) -> None:
        """The next bytes; DiskFull when there is no room for them."""
        rest = memoryview(chunk)
        self._file.seek(self.size)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            free = shutil.disk_usage(self.path.parent).free
            raise DiskFull(
                f"no room left in {self.path.parent} ({free:,} bytes free) for a remote file; free some space and retry"
            ) from error
        self._sha256.update(chunk)
        self.size += len(chunk)

    def start_again(self) -> None:
        """Forget what is here: it is not what it should be."""
        self._file.seek(0)
        self._file.truncate()
        self.size = 0
        self._sha256 = hashlib.sha256()

    @property
    def digest(self) -> str:
        """sha256 of what is here, lower-case hex."""
        return self._sha256.hexdigest()

    def git_id(self) -> str:
        """The id that git gives these bytes. Reads them all."""
        found = hashlib.sha1(b"blob %d\x00" % self.size, usedforsecurity=False)
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            found.update(chunk)
        return found.hexdigest()

    def flush(self) -> None:
        """Have the bytes on disk, not only on their way."""
        os.fsync(self._file.fileno())

    def forget(self) -> None:
        """Remove the file; who has it open can read on."""
        self.path.unlink(missing_ok=True)
