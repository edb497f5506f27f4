"""What a remote storage is to the platform, whichever kind it is: the two verbs of a source, and how it fails.

A source makes one attempt at a time and says how it failed. No message of theirs holds a secret or a signed address.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tunesmith.api.filesets import HuggingFaceStorage, NgcStorage, RemoteStorage, S3Storage
from tunesmith.errors import Conflict, Unavailable, Upstream
from tunesmith.store.filesets import StoredFile

CHUNK = 1 << 20
"""Bytes that are in memory at once, of one file."""
Secrets = Mapping[str, str]
"""By field of the storage: the secret's value."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """A remote storage at one version, and the files it held then."""

    storage: RemoteStorage
    """With its commit or version filled in."""
    files: tuple[StoredFile, ...]
    """Without digests; `tag` is `sha256:...`, `git:...` (a blob id) or `etag:...`."""


class Interrupted(Upstream):
    """A storage could not be reached, or stopped in the middle: another attempt may do."""


class Busy(Unavailable):
    """A storage wants us to come back later."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds
        """As it asked for; None when it did not say."""


class Changed(Conflict):
    """A remote file is not what it was when it was listed."""


class Source(Protocol):
    """One kind of remote storage. Any failure is BadRequest, Changed, Interrupted or Busy."""

    async def pin(self, storage: Any, secrets: Secrets) -> Pinned:
        """What the storage holds now."""
        ...

    def read(self, storage: Any, secrets: Secrets, file: StoredFile, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes `start` to `stop` of a file, one attempt."""
        ...


def address_of(storage: RemoteStorage) -> str | None:
    """Where a storage is; None = Amazon's S3, whichever of its hosts."""
    match storage:
        case HuggingFaceStorage():
            return storage.endpoint
        case NgcStorage():
            return storage.host
        case S3Storage():
            return storage.endpoint_url


def unreachable(storage: RemoteStorage, why: str) -> str:
    """The message for a storage that does not answer as it should."""
    return f"Storage backend unavailable: {address_of(storage) or 'Amazon S3'}: {why}"


def changed(file: StoredFile, why: str) -> str:
    """The message for a file that is not what was listed."""
    return f"'{file.path}' has changed in its storage since it was listed: {why}; list the fileset's files again"
