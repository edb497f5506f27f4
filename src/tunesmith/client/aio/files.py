"""The files in filesets."""

from __future__ import annotations

import builtins
from pathlib import Path

import httpx

from tunesmith.api import paths
from tunesmith.api.base import Items
from tunesmith.api.filesets import Fileset, FilesetFile
from tunesmith.client import trees, wire
from tunesmith.client.aio.filesets import AsyncFilesets
from tunesmith.client.aio.resource import AsyncResource
from tunesmith.client.aio.transport import AsyncTransport
from tunesmith.client.waiting import async_drawn, async_each
from tunesmith.errors import Invalid

_BYTES = {"Content-Type": "application/octet-stream"}
_AS_THEY_ARE = {"Accept": "*/*", "Accept-Encoding": "identity"}


class AsyncFiles(AsyncResource):
    """`client.files`. Bytes go up and down as they are, in constant memory, four files at a time."""

    def __init__(self, transport: AsyncTransport, workspace: str) -> None:
        super().__init__(transport, workspace)
        self.filesets = AsyncFilesets(transport, workspace)

    async def upload(
        self,
        local_path: str | Path,
        *,
        fileset: str,
        remote_path: str = "",
        workspace: str | None = None,
        progress: trees.Progress | None = None,
    ) -> Fileset:
        """A file or a directory into a fileset; returns the fileset.

        `dir/` puts the directory's contents at `remote_path`, `dir` (and any Path) nests them under its name. A file
        goes to `remote_path`, or into it when it is empty or ends with a slash. What is there already is replaced.
        """
        sources = trees.to_upload(local_path, remote_path)
        meter = trees.Meter(sum(source.size for source in sources), progress)

        async def put(source: trees.Source) -> None:
            await self._transport.send(
                "PUT",
                self._file(fileset, source.remote, workspace),
                content=lambda: async_drawn(trees.chunks(source, meter.start(source.remote))),
                headers={**_BYTES, "Content-Length": str(source.size)},
            )

        await async_each(trees.CONCURRENCY, put, sources)
        return await self.filesets.retrieve(fileset, workspace=workspace)

    async def upload_content(
        self, content: bytes | str, remote_path: str, fileset: str, *, workspace: str | None = None
    ) -> FilesetFile:
        """Bytes, or text as UTF-8, into one file of a fileset."""
        sent = content.encode() if isinstance(content, str) else content
        path = self._file(fileset, remote_path, workspace)
        response = await self._transport.send("PUT", path, content=lambda: sent, headers=_BYTES)
        return wire.read(FilesetFile, response)

    async def list(
        self,
        fileset: str,
        remote_path: str | None = None,
        *,
        workspace: str | None = None,
        include_cache_status: bool = False,
    ) -> Items[FilesetFile]:
        """The files of a fileset, or those below the directory `remote_path`, or that one file.

        `include_cache_status` says of remote files whether they are here.
        """
        path = self._at(paths.FILESET_FILES, fileset, workspace)
        more = {"include_cache_status": "true" if include_cache_status else None}
        return await self._transport.get(Items[FilesetFile], path, {"path": remote_path or None, **more})

    async def download(
        self,
        fileset: str,
        local_path: str | Path,
        remote_path: str | None = None,
        *,
        workspace: str | None = None,
        progress: trees.Progress | None = None,
    ) -> builtins.list[Path]:
        """A fileset, a directory of it or one of its files; returns the paths written.

        The mirror of `upload`. Each file appears whole, by a rename. NotFound if there is nothing at `remote_path`.
        """
        found = await self.list(fileset, remote_path, workspace=workspace)
        targets = trees.to_download(found.data, fileset, local_path, remote_path)
        meter = trees.Meter(sum(target.size for target in targets), progress)

        async def fetch(target: trees.Target) -> None:
            count = meter.start(target.remote)
            response = await self._open(self._file(fileset, target.remote, workspace))
            try:
                with trees.appearing(target.local) as file:
                    async for chunk in response.aiter_raw():
                        file.write(chunk)
                        count(len(chunk))
            except httpx.TransportError as error:
                raise self._transport.failure(error) from error
            finally:
                await response.aclose()

        await async_each(trees.CONCURRENCY, fetch, targets)
        return [target.local for target in targets]

    async def download_content(self, fileset: str, remote_path: str, *, workspace: str | None = None) -> bytes:
        """The bytes of one file."""
        path = self._file(fileset, remote_path, workspace)
        return (await self._transport.send("GET", path, headers=_AS_THEY_ARE)).content

    async def delete(self, fileset: str, remote_path: str, *, workspace: str | None = None) -> FilesetFile:
        """Take one file out of a fileset; returns what it was."""
        path = self._file(fileset, remote_path, workspace)
        return wire.read(FilesetFile, await self._transport.send("DELETE", path))

    async def _open(self, path: str) -> httpx.Response:
        return await self._transport.send("GET", path, headers=_AS_THEY_ARE, stream=True)

    def _file(self, fileset: str, remote_path: str, workspace: str | None) -> str:
        path = remote_path.strip("/")
        if not path:
            raise Invalid(f"remote_path: '{remote_path}' does not name a file")
        return self._at(paths.FILE, fileset, workspace, path=path)
