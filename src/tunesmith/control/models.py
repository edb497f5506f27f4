"""What may happen to model entities: create (the spec is read from the checkpoint), retrieve, list."""

from __future__ import annotations

import asyncio

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.models import CreateModel, Model, ModelSpec
from tunesmith.control.checkpoints import as_spec, read_facts
from tunesmith.errors import BadRequest, Invalid, NotFound
from tunesmith.refs import Ref
from tunesmith.store.blobs import Blobs
from tunesmith.store.database import Database
from tunesmith.store.filesets import Snapshot


class ModelService:
    """Checkpoints, what they say about themselves, and their adapters."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self.database = database
        self.blobs = blobs

    async def create(self, workspace: str, asked: CreateModel) -> Model:
        """A new model entity. A checkpoint that cannot be read leaves its spec null and says why in custom_fields."""
        ref = Ref.fileset(asked.fileset, workspace)
        try:
            snapshot = await self.database.read(lambda tx: tx.filesets.snapshot(ref))
        except NotFound as error:
            raise BadRequest(error.message) from None
        spec, why = await asyncio.to_thread(self._read_spec, snapshot)
        return await self.database.write(lambda tx: tx.models.create(workspace, asked, ref, spec, why))

    async def get(self, workspace: str, name: str, verbose: bool) -> Model:
        """The model; NotFound without it."""
        return await self.database.read(lambda tx: tx.models.get(workspace, name, verbose))

    async def page(self, workspace: str, asked: PageRequest) -> Page[Model]:
        """One page of a workspace's models."""
        return await self.database.read(lambda tx: tx.models.page(workspace, asked))

    def _read_spec(self, snapshot: Snapshot) -> tuple[ModelSpec | None, str]:
        try:
            return as_spec(read_facts(snapshot, self.blobs), snapshot.chat_template), ""
        except Invalid as error:
            return None, error.message
