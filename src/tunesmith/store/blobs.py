"""Bytes on disk, named by their digest: written once, never changed, shared by everything that holds them.

Layout: `blobs/ab/abcdef...`, files 0400, and `blobs/incoming/` for bytes on their way in.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Self

from tunesmith.errors import DiskFull
from tunesmith.store.filesets import StoredFile
from tunesmith.store.ids import hexadecimal

READ_ONLY = 0o400
INCOMING = "incoming"


class Blobs:
    """All bytes of one data directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / INCOMING
        shutil.rmtree(self.incoming, ignore_errors=True)  # what a killed server left half-written
        self.incoming.mkdir(parents=True, mode=0o700)

    def path(self, digest: str) -> Path:
        """Where the bytes of that digest are, or would be."""
        return self.root / digest[:2] / digest

    def writer(self) -> BlobWriter:
        """Takes bytes in; nothing is visible before `keep`."""
        return BlobWriter(self)

    def adopt(self, source: Path, digest: str) -> None:
        """Make an existing file the blob of `digest` without copying; its writer vouches for the digest."""
        target = self.path(digest)
        if target.exists():
            return
        self._enter(source, target, move=False)

    def link(self, files: Iterable[StoredFile], directory: Path) -> None:
        """Lay the files out under `directory` as read-only links to their blobs. Safe to repeat."""
        for file in files:
            target = directory / file.path
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if target.exists():
                continue
            try:
                target.hardlink_to(self.path(file.digest))
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                    raise
                target.symlink_to(self.path(file.digest))

    def _enter(self, source: Path, target: Path, *, move: bool) -> None:
        target.parent.mkdir(exist_ok=True, mode=0o700)
        source.chmod(READ_ONLY)
        try:
            if move:
                source.replace(target)
            else:
                target.hardlink_to(source)
        except FileExistsError:
            return
        _flush_directory(target.parent)


class BlobWriter:
    """One file on its way in: write bytes, then `keep` or leave the `with` block to forget them."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.size = 0
        self._hash = hashlib.sha256()
        self._path = blobs.incoming / hexadecimal(16)
        self._file: BinaryIO = self._path.open("xb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Append; DiskFull when there is no room."""
        self._hash.update(chunk)
        self.size += len(chunk)
        try:
            rest = memoryview(chunk)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _full(error, self.blobs.root) from error

    def keep(self) -> str:
        """Flush to disk, give the bytes their place, and return their digest."""
        digest = self._hash.hexdigest()
        target = self.blobs.path(digest)
        if target.exists():
            return digest
        try:
            os.fsync(self._file.fileno())
            self.blobs._enter(self._path, target, move=True)  # noqa: SLF001 - the two are one mechanism
        except OSError as error:
            raise _full(error, self.blobs.root) from error
        return digest


def _flush_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _full(error: OSError, root: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(root).free
        return DiskFull(f"no room left in {root} ({free:,} bytes free); nothing was stored: free some space and retry")
    return error
