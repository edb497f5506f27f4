"""Adapters in the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, String, and_, case, func, or_, select, type_coerce

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.filters import Op, Test
from tunesmith.api.models import Adapter, FinetuningType, LoraConfig, UpdateAdapter
from tunesmith.errors import Conflict
from tunesmith.refs import Ref, check_name
from tunesmith.store.filesets import Filesets, Snapshot
from tunesmith.store.filtering import Field, condition
from tunesmith.store.rows import Named
from tunesmith.store.tables import adapters, filesets, models


@dataclass(frozen=True, slots=True)
class ServableAdapter:
    """An enabled adapter and the bytes it stands for."""

    ref: Ref
    snapshot: Snapshot

    @property
    def fetched(self) -> bool:
        """Whether all its bytes are here; only then it has a served name."""
        return all(file.digest for file in self.snapshot.files)

    @property
    def served_name(self) -> str:
        """Under which a serving process knows it: its identity is its digest."""
        return f"{self.ref.workspace}--{self.ref.name}@{self.snapshot.digest[:16]}"


def _referred(column: ColumnElement[Any], op: Op, value: Any) -> ColumnElement[bool]:
    """A reference may be asked for as `workspace/name`, or by the bare name in the adapter's own workspace."""
    prefix = adapters.c.workspace + "/"
    own = func.substr(column, 1, func.length(prefix)) == prefix
    bare = case((own, func.substr(column, func.length(prefix) + 1)), else_=column)
    fields: dict[str, Field] = {"reference": column, "bare": type_coerce(bare, String)}
    if op not in (Op.EQ, Op.IN, Op.NIN) or value is None:
        return condition(Test("reference", op, value), fields)
    either = [condition(Test(name, op, value), fields) for name in fields]
    return and_(*either) if op is Op.NIN else or_(*either)


class Adapters(Named):
    """Trained weights beside a model's own; names are unique in a workspace."""

    table = adapters
    kind = "adapter"
    missing = "Adapter '{name}' not found in workspace '{workspace}'"
    twin = "Model adapter already exists: {workspace}/{name}"
    filterable = {
        "model": partial(_referred, adapters.c.model_ref),
        "fileset": partial(_referred, adapters.c.fileset_ref),
        "finetuning_type": adapters.c.finetuning_type,
        "enabled": adapters.c.enabled,
        "lora_config.rank": adapters.c.rank,
        "lora_config.alpha": adapters.c.alpha,
    }

    def create(
        self,
        ref: Ref,
        *,
        model_id: str,
        model: Ref,
        fileset: Ref,
        description: str | None,
        rank: int | None,
        alpha: float | None,
        finetuning_type: FinetuningType = "lora",
        enabled: bool = True,
        project: str | None = None,
    ) -> Adapter:
        """A new adapter of `model`; Conflict when an adapter or a model has its name."""
        check_name(ref.name)
        if (twin := self.find_row(ref.workspace, ref.name)) is not None:
            raise Conflict(f"Model adapter already exists: {twin['model_ref']}/{ref.name}")
        taken = select(models.c.id).where(models.c.workspace == ref.workspace, models.c.name == ref.name)
        if self.connection.execute(taken).first() is not None:
            raise Conflict(f"A model '{ref}' exists; an adapter of that name could not be told from it")
        row = self.insert(
            ref.workspace,
            ref.name,
            description=description,
            project=project,
            model_id=model_id,
            model_ref=str(model),
            fileset_ref=str(fileset),
            finetuning_type=finetuning_type,
            enabled=enabled,
            rank=rank,
            alpha=alpha,
        )
        return _adapter(row)

    def get(self, workspace: str, name: str) -> Adapter:
        """The adapter; NotFound without it."""
        return _adapter(self.row(workspace, name))

    def page(self, workspace: str, asked: PageRequest) -> Page[Adapter]:
        """One page of a workspace's adapters."""
        return self.page_of(workspace, asked, self.read)

    def update(self, workspace: str, name: str, asked: UpdateAdapter, **read: Any) -> Adapter:
        """Change what is given; `read` are columns that another fileset's files say. NotFound without the adapter."""
        row = self.row(workspace, name)
        changes = {**asked.model_dump(exclude_none=True, exclude={"fileset"}), **read}
        return _adapter(self.change(row, **changes) if changes else row)

    def servable(self, model: Ref) -> list[ServableAdapter]:
        """The enabled adapters of a model whose filesets are there, with the bytes that each stands for now."""
        there = select(filesets.c.id).where(
            filesets.c.workspace + "/" + filesets.c.name == adapters.c.fileset_ref
        )  # a fileset that was deleted takes its adapter out of service, and no other
        query = select(adapters).where(adapters.c.model_ref == str(model), adapters.c.enabled, there.exists())
        held = Filesets(self.connection)
        return [
            ServableAdapter(Ref(row["workspace"], row["name"]), held.snapshot(Ref.unchecked(row["fileset_ref"])))
            for row in self.connection.execute(query.order_by(adapters.c.created_at)).mappings().all()
        ]

    def read(self, rows: Iterable[RowMapping]) -> list[Adapter]:
        """Rows of the table as the wire sees them."""
        return [_adapter(row) for row in rows]


def _adapter(row: RowMapping) -> Adapter:
    rank, alpha = row["rank"], row["alpha"]
    whole = int(alpha) if alpha is not None and float(alpha).is_integer() else alpha
    return Adapter.model_validate(
        {
            **row,
            "model": row["model_ref"],
            "fileset": row["fileset_ref"],
            "lora_config": LoraConfig(rank=rank, alpha=whole) if rank else None,
        }
    )
