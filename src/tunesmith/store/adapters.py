"""Adapters in the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, select, update

from tunesmith.api.base import Page, PageRequest, paged
from tunesmith.api.models import Adapter, LoraConfig, UpdateAdapter
from tunesmith.refs import Ref
from tunesmith.store.filesets import Filesets, Snapshot
from tunesmith.store.ids import now
from tunesmith.store.rows import Named
from tunesmith.store.tables import adapters, filesets, models


@dataclass(frozen=True, slots=True)
class ServableAdapter:
    """An enabled adapter and the bytes it stands for."""

    ref: Ref
    snapshot: Snapshot

    @property
    def served_name(self) -> str:
        """Under which a serving process knows it: its identity is its digest."""
        return f"{self.ref.workspace}--{self.ref.name}@{self.snapshot.digest[:16]}"


class Adapters(Named):
    """Trained weights beside a model's own; names are unique in a workspace."""

    table = adapters
    kind = "adapter"
    missing = "Adapter '{name}' not found in workspace '{workspace}'"
    twin = "Model adapter already exists: {workspace}/{name}"

    def create(
        self, ref: Ref, *, model_id: str, fileset_id: str, description: str | None, rank: int, alpha: int
    ) -> None:
        """A new, enabled LoRA adapter in its base model's workspace."""
        self.insert(
            ref.workspace,
            ref.name,
            description=description,
            model_id=model_id,
            fileset_id=fileset_id,
            finetuning_type="lora",
            enabled=True,
            rank=rank,
            alpha=alpha,
        )

    def get(self, workspace: str, name: str) -> Adapter:
        """The adapter; NotFound without it."""
        (adapter,) = self.read([self.row(workspace, name)])
        return adapter

    def page(self, workspace: str, asked: PageRequest) -> Page[Adapter]:
        """One page of a workspace's adapters."""
        rows, total = self.page_rows(workspace, asked)
        return paged(self.read(rows), total, asked)

    def update(self, workspace: str, name: str, asked: UpdateAdapter) -> Adapter:
        """Change what is given; NotFound without the adapter."""
        row = self.row(workspace, name)
        changes = asked.model_dump(exclude_none=True)
        if changes:
            statement = update(adapters).where(adapters.c.id == row["id"])
            self.connection.execute(statement.values(**changes, updated_at=now()))
        return self.get(workspace, name)

    def servable(self, model: Ref) -> list[ServableAdapter]:
        """The enabled adapters of a model, with the bytes that each stands for now."""
        query = (
            select(adapters.c.workspace, adapters.c.name, filesets.c.workspace, filesets.c.name)
            .join(models, models.c.id == adapters.c.model_id)
            .join(filesets, filesets.c.id == adapters.c.fileset_id)
            .where(models.c.workspace == model.workspace, models.c.name == model.name, adapters.c.enabled)
        )
        held = Filesets(self.connection)
        return [
            ServableAdapter(Ref(row[0], row[1]), held.snapshot(Ref(row[2], row[3])))
            for row in self.connection.execute(query)
        ]

    def read(self, rows: Iterable[RowMapping]) -> list[Adapter]:
        """Rows of the table as the wire sees them."""
        return [Adapter.model_validate({**row, **self._referred(row)}) for row in rows]

    def _referred(self, row: RowMapping) -> Mapping[str, Any]:
        named = {}
        for key, table, wanted in (("model", models, "model_id"), ("fileset", filesets, "fileset_id")):
            found = self.connection.execute(
                select(table.c.workspace, table.c.name).where(table.c.id == row[wanted])
            ).one()
            named[key] = f"{found.workspace}/{found.name}"
        return {**named, "lora_config": LoraConfig(rank=row["rank"], alpha=row["alpha"]) if row["rank"] else None}
