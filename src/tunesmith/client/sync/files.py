# Made by scripts/unasync.py from ../aio/files.py: change that file and run the script again.
"""The files in filesets."""

from __future__ import annotations

import builtins
from pathlib import Path

import httpx

from tunesmith.api import paths
from tunesmith.api.base import Items
from tunesmith.api.filesets import Fileset, FilesetFile
from tunesmith.client import trees, wire
from tunesmith.client.sync.filesets import Filesets
from tunesmith.client.sync.resource import Resource
from tunesmith.client.sync.transport import Transport
from tunesmith.client.waiting import drawn, each
from tunesmith.errors import Invalid

_BYTES = {"Content-Type": "application/octet-stream"}
_AS_THEY_ARE = {"Accept": "*/*", "Accept-Encoding": "identity"}


class Files(Resource):
    """`client.files`. Bytes go up and down as they are, in constant memory, four files at a time."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        super().__init__(transport, workspace)
        self.filesets = Filesets(transport, workspace)

    def upload(
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

        def put(source: trees.Source) -> None:
            self._transport.send(
                "PUT",
                self._file(fileset, source.remote, workspace),
                content=lambda: drawn(trees.chunks(source, meter.start(source.remote))),
                headers={**_BYTES, "Content-Length": str(source.size)},
            )

        each(trees.CONCURRENCY, put, sources)
        return self.filesets.retrieve(fileset, workspace=workspace)

    def upload_content(
        self, content: bytes | str, remote_path: str, fileset: str, *, workspace: str | None = None
    ) -> FilesetFile:
        """Bytes, or text as UTF-8, into one file of a fileset."""
        sent = content.encode() if isinstance(content, str) else content
        path = self._file(fileset, remote_path, workspace)
        response = self._transport.send("PUT", path, content=lambda: sent, headers=_BYTES)
        return wire.read(FilesetFile, response)

    def list(
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
        return self._transport.get(Items[FilesetFile], path, {"path": remote_path or None, **more})

    def download(
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
        found = self.list(fileset, remote_path, workspace=workspace)
        targets = trees.to_download(found.data, fileset, local_path, remote_path)
        meter = trees.Meter(sum(target.size for target in targets), progress)

        def fetch(target: trees.Target) -> None:
            count = meter.start(target.remote)
            response = self._open(self._file(fileset, target.remote, workspace))
            try:
                with trees.appearing(target.local) as file:
                    for chunk in response.iter_raw():
                        file.write(chunk)
                        count(len(chunk))
            except httpx.TransportError as error:
                raise self._transport.failure(error) from error
            finally:
                response.close()

        each(trees.CONCURRENCY, fetch, targets)
        return [target.local for target in targets]

    def download_content(self, fileset: str, remote_path: str, *, workspace: str | None = None) -> bytes:
        """The bytes of one file."""
        path = self._file(fileset, remote_path, workspace)
        return (self._transport.send("GET", path, headers=_AS_THEY_ARE)).content

    def delete(self, fileset: str, remote_path: str, *, workspace: str | None = None) -> FilesetFile:
        """Take one file out of a fileset; returns what it was."""
        path = self._file(fileset, remote_path, workspace)
        return wire.read(FilesetFile, self._transport.send("DELETE", path))

    def _open(self, path: str) -> httpx.Response:
        return self._transport.send("GET", path, headers=_AS_THEY_ARE, stream=True)

    def _file(self, fileset: str, remote_path: str, workspace: str | None) -> str:
        path = remote_path.strip("/")
        if not path:
            raise Invalid(f"remote_path: '{remote_path}' does not name a file")
        return self._at(paths.FILE, fileset, workspace, path=path)
