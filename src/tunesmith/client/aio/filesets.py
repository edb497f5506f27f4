"""Filesets: named collections of files, the platform's own or views of a remote storage."""

from __future__ import annotations

from pydantic import BaseModel

from tunesmith.api import paths
from tunesmith.api.base import JsonObject, Page
from tunesmith.api.filesets import (
    CreateFileset,
    Fileset,
    FilesetMetadata,
    HuggingFaceStorage,
    NgcStorage,
    Purpose,
    S3Storage,
    UpdateFileset,
)
from tunesmith.client import wire
from tunesmith.client.aio.pages import AsyncPages
from tunesmith.client.aio.resource import AsyncResource


class AsyncFilesets(AsyncResource):
    """`client.files.filesets`."""

    async def create(
        self,
        name: str,
        *,
        workspace: str | None = None,
        description: str | None = None,
        project: str | None = None,
        purpose: Purpose | None = None,
        storage: HuggingFaceStorage | NgcStorage | S3Storage | JsonObject | None = None,
        metadata: FilesetMetadata | JsonObject | None = None,
        custom_fields: JsonObject | None = None,
        cache: bool | None = None,
        exist_ok: bool = False,
    ) -> Fileset:
        """A new fileset: empty, or with the files of a remote `storage`, which `cache` fetches at once.

        A remote storage is looked at before this returns, so what does not exist there or is not open to us is refused
        here. With `exist_ok` a fileset of that name is returned as it is.
        """
        there = self._at(paths.FILESET, name, workspace) if exist_ok else None
        path, name = self._new(paths.FILESETS, name, workspace)
        body = wire.ask(
            CreateFileset,
            name=name,
            description=description,
            project=project,
            purpose=purpose,
            storage=storage,
            metadata=metadata,
            custom_fields=custom_fields,
            cache=cache,
        )
        if isinstance(storage, BaseModel):
            body["storage"]["type"] = storage.type  # a default, and so not among what was set
        return await self._make(Fileset, path, body, there)

    async def retrieve(self, name: str, *, workspace: str | None = None) -> Fileset:
        """One fileset."""
        return await self._transport.get(Fileset, self._at(paths.FILESET, name, workspace))

    async def list(
        self,
        *,
        workspace: str | None = None,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> AsyncPages[Fileset]:
        """The workspace's filesets."""
        path = self._in(paths.FILESETS, workspace)
        return await AsyncPages.begin(self._transport, Page[Fileset], path, page, page_size, sort, filter)

    async def update(
        self,
        name: str,
        *,
        workspace: str | None = None,
        description: str | None = None,
        project: str | None = None,
        purpose: Purpose | None = None,
        metadata: FilesetMetadata | JsonObject | None = None,
        custom_fields: JsonObject | None = None,
    ) -> Fileset:
        """Change a fileset; None leaves as it is, what is given is replaced whole."""
        body = wire.ask(
            UpdateFileset,
            description=description,
            project=project,
            purpose=purpose,
            metadata=metadata,
            custom_fields=custom_fields,
        )
        return await self._transport.patch(Fileset, self._at(paths.FILESET, name, workspace), body)

    async def delete(self, name: str, *, workspace: str | None = None) -> Fileset:
        """Remove a fileset with its files; returns what it was. Jobs and deployments that began with it keep theirs."""
        return await self._transport.delete(self._at(paths.FILESET, name, workspace), Fileset)
