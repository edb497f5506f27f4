"""Stand-ins for remote storages, and a store to fetch into."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.control.sources.standins.hub import Hub
from tunesmith.api.filesets import CreateFileset, RemoteStorage
from tunesmith.control.contents import Contents
from tunesmith.control.filesets import create
from tunesmith.control.sources import registry
from tunesmith.control.sources.base import Pinned
from tunesmith.control.sources.registry import Sources
from tunesmith.errors import NotFound
from tunesmith.refs import Ref
from tunesmith.settings import Settings
from tunesmith.store.blobs import Blobs
from tunesmith.store.database import Database
from tunesmith.store.filesets import Snapshot, StoredFile

T = TypeVar("T")

REMOTE = Ref("default", "remote")


class Tokens:
    """Secrets by name."""

    def __init__(self, **values: str) -> None:
        self.values = {f"default/{name}": value for name, value in values.items()}

    async def value(self, ref: Ref) -> str:
        try:
            return self.values[str(ref)]
        except KeyError:
            raise NotFound(f"Secret '{ref}' not found") from None


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between attempts here."""
    monkeypatch.setattr(registry, "PAUSE_SECONDS", 0.001)


def pin(storage: RemoteStorage, *allowed: str, **secrets: str) -> Pinned:
    """Pin a storage of a workspace with these secrets, on a platform that allows these addresses."""

    async def run() -> Pinned:
        sources = Sources(Settings(hub_endpoint=allowed[0], allowed_endpoints=allowed), Tokens(**secrets))
        try:
            return await sources.pin("default", storage)
        finally:
            await sources.close()

    return asyncio.run(run())


@dataclass
class Shelf:
    """A platform's blobs and database, and fetches into them; `contents` is a server's life."""

    root: Path
    allowed: tuple[str, ...]
    secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.database = Database(self.root / "tunesmith.db")
        self.blobs = Blobs(self.root / "blobs")

    def contents(self) -> Contents:
        settings = Settings(hub_endpoint=self.allowed[0], allowed_endpoints=self.allowed)
        return Contents(Blobs(self.root / "blobs"), Sources(settings, Tokens(**self.secrets)), self.database)

    async def fileset(self, contents: Contents, storage: RemoteStorage, name: str = "remote") -> Snapshot:
        """A fileset over a remote storage, as creation makes it."""
        pinned = await contents.sources.pin("default", storage)
        ref = Ref("default", name)

        await self.database.write(create, "default", CreateFileset(name=name), pinned)
        return await self.now(ref)

    async def now(self, ref: Ref = REMOTE) -> Snapshot:
        """The fileset as it is known."""
        return await self.database.read(lambda tx: tx.filesets.snapshot(ref))

    def bytes_of(self, file: StoredFile) -> bytes:
        assert file.digest is not None
        return self.blobs.path(file.digest).read_bytes()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """A server's life in one call."""
        return asyncio.run(asyncio.wait_for(work, 60))


async def collect(contents: Contents, snapshot: Snapshot, file: StoredFile, **part: int) -> bytes:
    """What a download gives."""
    async with aclosing(contents.stream(snapshot, file, **part)) as chunks:  # type: ignore[type-var]
        return b"".join([chunk async for chunk in chunks])


@pytest.fixture
def shelf(tmp_path: Path, hub: Hub) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path, (hub.url,), {"hub": "hf_canary1234567890"})
    yield shelf
    shelf.database.close()
