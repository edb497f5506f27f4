"""Directories that are complete or not there, and words for a disk that is full."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from tunesmith.errors import EngineError

SPARE_BYTES = 1 << 20
"""Room that is left free beyond what is written: for small files, and for the words of a run that has to end."""


@contextmanager
def written(final: Path, needed: int) -> Iterator[Path]:
    """An empty directory for `needed` bytes, flushed and given the name `final` after the block that fills it.

    One of that name is replaced. EngineError (CheckpointError) if the disk does not take it: nothing of it stays.
    """
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with told_of_disk(final, needed + SPARE_BYTES):
        try:
            temporary.mkdir(parents=True)
            if shutil.disk_usage(temporary).free < needed + SPARE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield temporary
            _publish(temporary, final)
        except (OSError, SafetensorError):
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextmanager
def told_of_disk(path: Path, needed: int) -> Iterator[None]:
    """Whatever goes wrong with writing `path` is an EngineError (CheckpointError) with the needed and free bytes."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) else error  # safetensors knows no errno
        parent = next(each for each in path.parents if each.exists())
        raise EngineError(
            f"{path} could not be written: {why}. It needs {needed:,} bytes, {shutil.disk_usage(parent).free:,} are "
            "free. The last complete checkpoint stays",
            "CheckpointError",
        ) from error


def sha256_of(path: Path) -> str:
    """Digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish(temporary: Path, final: Path) -> None:
    for path in (*temporary.iterdir(), temporary):
        _flush(path)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _flush(final.parent)
    _flush(final.parent.parent)  # which may have got its directory just now


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
