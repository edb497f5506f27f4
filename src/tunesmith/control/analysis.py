"""Reads the checkpoints of models whose spec is pending, and writes down what they say, or why they cannot be read.

Level-triggered: whatever is pending is read, whichever server made it so. A result counts for the state of the fileset
that it was read from; where that has changed meanwhile the model is pending again, and is read again.
"""

from __future__ import annotations

import asyncio

from tunesmith.api.filesets import ToolCalling
from tunesmith.api.models import ModelSpec
from tunesmith.control.checkpoints import as_spec, read_facts
from tunesmith.control.contents import Contents
from tunesmith.errors import DiskFull, NotFound, TunesmithError, Unavailable, Upstream
from tunesmith.store.database import Database, Tx
from tunesmith.store.filesets import Snapshot
from tunesmith.store.models import PendingModel

LOOK_AT = 64
"""Pending models that one look finds."""
AT_ONCE = 2
"""Checkpoints that are read at the same time: a header takes up to 100 MB."""

PASSING = (Upstream, Unavailable, DiskFull)
"""Reasons that may be gone at the next try."""


class Analysis:
    """Takes turns with pending models."""

    def __init__(self, database: Database, contents: Contents) -> None:
        self.database = database
        self.contents = contents
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def pending(self) -> list[PendingModel]:
        """The models to take a turn with."""
        return await self.database.read(lambda tx: tx.models.pending(LOOK_AT))

    async def turn(self, model: PendingModel) -> bool:
        """Read one checkpoint and keep the result. What may pass is noted, raised, and so tried again later."""
        async with self._at_once:
            spec, why = None, ""
            try:
                spec = await self._read(model)
            except PASSING as error:
                trouble = f"{error.message} (it will be tried again)"
                await self.database.write(lambda tx: tx.models.note_trouble(model, trouble))
                raise
            except TunesmithError as error:
                why = error.message
            await self.database.write(lambda tx: tx.models.read_spec(model, spec, why))
            return True

    async def _read(self, model: PendingModel) -> ModelSpec:
        snapshot, calling = await self.database.read(checkpoint, model)
        return as_spec(await read_facts(snapshot, self.contents, (model.ref.name,)), calling)


def checkpoint(tx: Tx, model: PendingModel) -> tuple[Snapshot, ToolCalling | None]:
    """The model's files, and what the fileset's metadata say about conversations; NotFound without the fileset."""
    try:
        about = tx.filesets.get(model.fileset.workspace, model.fileset.name).metadata.model
        return tx.filesets.snapshot(model.fileset), about.tool_calling if about else None
    except NotFound as error:
        raise NotFound(f"{error.message}; give the model another fileset, or create that one again") from None
