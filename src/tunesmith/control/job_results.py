"""What jobs have made, as workers report it: registered by name, and read back as a file or an archive."""

from __future__ import annotations

import asyncio
import tarfile
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tunesmith.api.platform_jobs import CreateResult, JobResult
from tunesmith.control.filesets import FilesetService, OpenFile, checked_path
from tunesmith.errors import NotFound
from tunesmith.refs import Ref, check_name
from tunesmith.store.database import Database, Tx
from tunesmith.store.filesets import Snapshot, StoredFile

COMPRESSION = 1
"""Weights hardly shrink, and at this level text shrinks to a fourth as fast as it is read."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a result is: one file, or a directory of them."""

    snapshot: Snapshot
    path: str
    """Of the file or directory in its fileset; "" = all of it."""

    @property
    def file(self) -> StoredFile | None:
        """The file; None for a directory."""
        return next((file for file in self.snapshot.files if file.path == self.path), None)


class ResultService:
    """Results of jobs of all kinds."""

    def __init__(self, database: Database, filesets: FilesetService) -> None:
        self.database = database
        self.filesets = filesets

    async def create(self, workspace: str, job: str, name: str, asked: CreateResult) -> JobResult:
        """A new result; Invalid for an address that is none, NotFound without the job, Conflict for a twin."""
        address(asked.artifact_url, workspace)
        check_name(name, "result")
        return await self.database.write(
            lambda tx: tx.job_results.create(tx.jobs.row(workspace, job), name, asked),
        )

    async def get(self, workspace: str, job: str, name: str) -> JobResult:
        """One result; NotFound without it."""
        return await self.database.read(lambda tx: tx.job_results.get(tx.jobs.row(workspace, job), name))

    async def all(self, workspace: str, job: str, sort: str) -> list[JobResult]:
        """All results of a job; NotFound without the job."""
        return await self.database.read(lambda tx: tx.job_results.all(tx.jobs.row(workspace, job), sort))

    async def artifact(self, workspace: str, job: str, name: str) -> Artifact:
        """What is behind a result; NotFound when nothing is there any more."""
        return await self.database.read(artifact, Ref(workspace, job), name)

    async def archive(self, found: Artifact) -> AsyncIterator[bytes]:
        """The files of a directory as tar.gz, their paths relative to it, read and packed as they are sent."""
        packer = zlib.compressobj(COMPRESSION, wbits=16 + zlib.MAX_WBITS)
        for file in found.snapshot.files:
            below = file.path.removeprefix(f"{found.path}/") if found.path else file.path
            opened = self.filesets.opened(file, found.snapshot)
            async for chunk in self._member(below, opened):
                if packed := await asyncio.to_thread(packer.compress, chunk):
                    yield packed
        yield packer.compress(bytes(2 * tarfile.BLOCKSIZE)) + packer.flush()

    async def _member(self, name: str, opened: OpenFile) -> AsyncIterator[bytes]:
        """A file as a member of an archive: head, bytes, and zeros up to the next block."""
        head = tarfile.TarInfo(name)
        head.size, head.mode = opened.file.size, 0o644
        yield head.tobuf(tarfile.PAX_FORMAT)
        if opened.file.size:
            async for chunk in self.filesets.stream(opened, 0, opened.file.size):
                yield chunk
        yield bytes(-opened.file.size % tarfile.BLOCKSIZE)


def address(url: str, workspace: str) -> tuple[Ref, str]:
    """The fileset and the path in it, "" for all of it; Invalid or BadRequest for what is no address of that kind."""
    where, _, path = url.removeprefix("fileset://").partition("#")
    ref = Ref.parse(where, workspace, "artifact_url")
    path = path.rstrip("/")
    return ref, checked_path(path) if path else ""


def artifact(tx: Tx, job: Ref, name: str) -> Artifact:
    """One transaction: what is behind a result."""
    result = tx.job_results.get(tx.jobs.row(job.workspace, job.name), name)
    ref, path = address(result.artifact_url, job.workspace)
    found = Artifact(tx.filesets.snapshot(ref, path), path)
    if not found.snapshot.files:
        raise NotFound(f"Result '{name}' of job '{job.name}': '{path or 'any file'}' is not in fileset '{ref}'")
    return found
