"""What may happen to adapters: list, retrieve, enable, disable."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.models import Adapter, UpdateAdapter
from tunesmith.errors import NotFound
from tunesmith.store.database import Database, Tx


class AdapterService:
    """Trained weights beside a model's own."""

    def __init__(self, database: Database, changed: Callable[[], None]) -> None:
        self.database = database
        self._changed = changed
        """Called after a change, so that deployments hear of it at once."""

    async def get(self, workspace: str, name: str) -> Adapter:
        """The adapter; NotFound without it."""
        return await self.database.read(lambda tx: tx.adapters.get(workspace, name))

    async def page(self, workspace: str, asked: PageRequest) -> Page[Adapter]:
        """One page of a workspace's adapters."""
        return await self.database.read(lambda tx: tx.adapters.page(workspace, asked))

    async def update(self, workspace: str, name: str, asked: UpdateAdapter, model: str | None = None) -> Adapter:
        """Change what is given; NotFound without the adapter, or when `model` is not its base."""
        adapter = await self.database.write(update_adapter, workspace, name, asked, model)
        self._changed()
        return adapter


def update_adapter(tx: Tx, workspace: str, name: str, asked: UpdateAdapter, model: str | None) -> Adapter:
    """One transaction: is it this model's adapter, then change it."""
    if model is not None:
        tx.models.row(workspace, model)
        found = tx.adapters.find_row(workspace, name)
        if found is None or tx.adapters.get(workspace, name).model != f"{workspace}/{model}":
            raise NotFound(f"Adapter {name} with workspace '{workspace}' and model name '{model}' not found")
    return tx.adapters.update(workspace, name, asked)
