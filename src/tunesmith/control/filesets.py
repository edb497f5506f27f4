"""What may happen to filesets: create, upload, list, read, remove a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.filesets import CreateFileset, Fileset, FilesetFile
from tunesmith.errors import BadRequest
from tunesmith.store.blobs import Blobs
from tunesmith.store.database import Database, Tx
from tunesmith.store.filesets import StoredFile

PATH_LIMIT = 1024
"""Characters of a file's path."""
THREAD_FROM = 256 << 10
"""Bytes from which a write is worth a thread's hop."""


class FilesetService:
    """Named collections of files."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self.database = database
        self.blobs = blobs

    async def create(self, workspace: str, asked: CreateFileset) -> Fileset:
        """A new, empty fileset."""
        return await self.database.write(lambda tx: tx.filesets.create(workspace, asked))

    async def get(self, workspace: str, name: str) -> Fileset:
        """The fileset; NotFound without it."""
        return await self.database.read(lambda tx: tx.filesets.get(workspace, name))

    async def page(self, workspace: str, asked: PageRequest) -> Page[Fileset]:
        """One page of a workspace's filesets."""
        return await self.database.read(_page, workspace, asked)

    async def files(self, workspace: str, name: str, path: str) -> list[FilesetFile]:
        """The files under a directory, or the one of that path."""
        return await self.database.read(lambda tx: tx.filesets.list_files(workspace, name, path))

    async def upload(self, workspace: str, name: str, path: str, chunks: AsyncIterator[bytes]) -> FilesetFile:
        """Take in a file: nobody sees it before all its bytes are on disk; cut off, the old file stays."""
        path = checked_path(path)
        await self.get(workspace, name)  # refuse before a byte is read
        with self.blobs.writer() as writer:
            async for chunk in chunks:
                if len(chunk) < THREAD_FROM:
                    writer.write(chunk)
                else:
                    await asyncio.to_thread(writer.write, chunk)
            digest = await asyncio.to_thread(writer.keep)
            size = writer.size
        return await self.database.write(lambda tx: tx.filesets.put(workspace, name, path, digest, size))

    async def open(self, workspace: str, name: str, path: str) -> tuple[StoredFile, Path]:
        """A file and where its bytes are; NotFound without it."""
        file = await self.database.read(lambda tx: tx.filesets.file(workspace, name, path))
        return file, self.blobs.path(file.digest)

    async def remove(self, workspace: str, name: str, path: str) -> FilesetFile:
        """Take a file out of its fileset."""
        return await self.database.write(lambda tx: tx.filesets.remove(workspace, name, path))


def checked_path(path: str) -> str:
    """A relative path without detours; BadRequest says what is wrong with any other."""
    parts = PurePosixPath(path).parts
    if not path or path.endswith("/") or len(path) > PATH_LIMIT or any(len(part.encode()) > 255 for part in parts):
        raise BadRequest(
            f"path: '{path[:80]}' must name a file, with at most {PATH_LIMIT} characters, 255 bytes a part"
        )
    if path.startswith("/") or ".." in parts or "." in path.split("/") or "" in path.split("/"):
        raise BadRequest(f"path: '{path[:80]}' must be relative, without '.', '..' or empty parts")
    if any(ord(character) < 32 or ord(character) == 127 for character in path) or "\\" in path:
        raise BadRequest(f"path: {path[:80]!r} must not contain control characters or backslashes")
    return path


def _page(tx: Tx, workspace: str, asked: PageRequest) -> Page[Fileset]:
    return tx.filesets.page(workspace, asked)
