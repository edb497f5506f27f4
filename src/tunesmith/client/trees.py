"""Directories on this side of the wire: what is uploaded as what, what is downloaded to where, and how far it is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import BinaryIO

from tunesmith.api.filesets import FilesetFile
from tunesmith.errors import Invalid, NotFound, TunesmithError

CHUNK_BYTES = 1 << 20
CONCURRENCY = 4
"""Files on their way at once."""

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all; may be called from several threads, never from two at once."""


@dataclass(frozen=True, slots=True)
class Source:
    """A local file and its path in the fileset."""

    local: Path
    remote: str
    size: int


@dataclass(frozen=True, slots=True)
class Target:
    """A file of a fileset and where it goes."""

    remote: str
    local: Path
    size: int


def to_upload(local_path: str | Path, remote_path: str) -> list[Source]:
    """The files under `local_path`, in order.

    A file goes to `remote_path`, or into it under its own name when it is empty or ends with a slash. The contents of
    `dir/` go to `remote_path`; `dir` itself goes to `remote_path`, so its files are below `remote_path/dir`.
    """
    path = Path(local_path)
    if path.is_file():
        remote = f"{remote_path}{path.name}" if remote_path.endswith("/") or not remote_path else remote_path
        return [_source(path, remote)]
    if not path.is_dir():
        raise NotFound(f"local_path: there is no file or directory '{local_path}' to upload")
    top = PurePosixPath(remote_path)
    if not str(local_path).endswith(("/", os.sep)):
        top /= path.resolve().name
    found = [
        Path(folder) / name
        for folder, folders, names in os.walk(path)
        for name in sorted(names)
        if folders.sort() is None and (Path(folder) / name).is_file()
    ]
    if not found:
        raise Invalid(f"local_path: '{local_path}' holds no files to upload")
    return [_source(file, str(top / file.relative_to(path).as_posix())) for file in found]


def to_download(
    files: list[FilesetFile], fileset: str, local_path: str | Path, remote_path: str | None
) -> list[Target]:
    """Where each of `files` goes: the mirror of `to_upload`.

    A single file named by `remote_path` goes to `local_path`, or into it when that is a directory or ends with a
    slash. `dir/` puts its files below `local_path`; `dir` puts them below `local_path/dir`; None takes everything.
    """
    wanted = (remote_path or "").strip("/")
    if remote_path and not files:
        raise NotFound(f"There is no file or directory '{remote_path}' in fileset '{fileset}'")
    top = Path(local_path)
    if [file.path for file in files] == [wanted]:
        inside = str(local_path).endswith(("/", os.sep)) or top.is_dir()
        return [Target(wanted, top / PurePosixPath(wanted).name if inside else top, files[0].size)]
    keep = "" if not remote_path or remote_path.endswith("/") else PurePosixPath(wanted).name
    return [
        Target(file.path, _below(top / keep, file.path.removeprefix(wanted).lstrip("/")), file.size) for file in files
    ]


def chunks(source: Source, count: Callable[[int], None]) -> Iterator[bytes]:
    """The file's bytes in portions, `count` told of each; exactly as many as it had when the upload was planned."""
    left = source.size
    with source.local.open("rb") as file:
        while left:
            chunk = file.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise TunesmithError(f"{source.local} became shorter while it was uploaded; upload it again")
            left -= len(chunk)
            yield chunk
            count(len(chunk))


@contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` whole, by a rename, or not at all; OSError names `path`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".part")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Meter:
    """Adds up what several files have moved. A file that starts again takes its bytes back."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._done: dict[str, int] = {}
        self._lock = Lock()
        if progress:
            progress(0, total)

    def start(self, key: str) -> Callable[[int], None]:
        """The counter of one file, at 0."""
        with self._lock:
            self._done[key] = 0

        def count(moved: int) -> None:
            with self._lock:
                self._done[key] += moved
                if self._progress:
                    self._progress(sum(self._done.values()), self._total)

        return count


def _source(path: Path, remote: str) -> Source:
    return Source(path, remote.lstrip("/"), path.stat().st_size)


def _below(top: Path, relative: str) -> Path:
    parts = PurePosixPath(relative).parts
    if not parts or ".." in parts or relative.startswith("/"):
        raise Invalid(f"the fileset's file '{relative}' would be written outside of {top}; nothing was downloaded")
    return top.joinpath(*parts)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
