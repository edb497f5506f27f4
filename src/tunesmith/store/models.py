"""Model entities in the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping, select, update

from tunesmith.api.base import Page, PageRequest, paged
from tunesmith.api.models import CreateModel, Model, ModelSpec
from tunesmith.errors import Conflict
from tunesmith.refs import Ref, check_name
from tunesmith.store.adapters import Adapters
from tunesmith.store.rows import Named
from tunesmith.store.tables import adapters, deployments, models


class Models(Named):
    """A checkpoint, what it says about itself, and its adapters."""

    table = models
    kind = "model"
    missing = "Model with workspace '{workspace}' and name '{name}' not found"
    twin = "Model with workspace '{workspace}' and name '{name}' already exists"

    def create(self, workspace: str, asked: CreateModel, fileset: Ref, spec: ModelSpec | None, why: str) -> Model:
        """A new model entity; `why` says what is wrong with the checkpoint when `spec` is None."""
        name = check_name(asked.name)
        if Adapters(self.connection).find_row(workspace, name) is not None:
            raise Conflict(f"An adapter '{workspace}/{name}' exists; a model of that name could not be told from it")
        row = self.insert(
            workspace,
            name,
            description=asked.description,
            fileset=str(fileset),
            spec=spec and spec.model_dump(mode="json"),
            custom_fields={**asked.custom_fields, **spec_state(spec, why)},
        )
        return self._model(row)

    def get(self, workspace: str, name: str, verbose: bool = False) -> Model:
        """The model with its adapters; `linear_layers` only when verbose; NotFound without it."""
        return self._model(self.row(workspace, name), verbose)

    def page(self, workspace: str, asked: PageRequest) -> Page[Model]:
        """One page of a workspace's models."""
        rows, total = self.page_rows(workspace, asked)
        return paged([self._model(row) for row in rows], total, asked)

    def set_spec(self, ref: Ref, spec: ModelSpec) -> None:
        """What the checkpoint says about itself, read after the entity was made."""
        row = self.row(ref.workspace, ref.name)
        values = {
            "spec": spec.model_dump(mode="json"),
            "custom_fields": {**row["custom_fields"], **spec_state(spec, "")},
        }
        self.connection.execute(update(models).where(models.c.id == row["id"]).values(values))

    def _model(self, row: RowMapping, verbose: bool = False) -> Model:
        spec = dict(row["spec"]) if row["spec"] else None
        if spec and not verbose:
            spec["linear_layers"] = None
        ref = f"{row['workspace']}/{row['name']}"
        held = select(adapters).where(adapters.c.model_id == row["id"]).order_by(adapters.c.created_at)
        served = select(deployments.c.workspace, deployments.c.name).where(
            deployments.c.model_ref == ref, deployments.c.status == "READY"
        )
        return Model.model_validate(
            {
                **row,
                "spec": spec,
                "adapters": Adapters(self.connection).read(self.connection.execute(held).mappings()),
                "model_providers": [f"{each.workspace}/{each.name}" for each in self.connection.execute(served)],
            }
        )


def spec_state(spec: ModelSpec | None, why: str) -> Mapping[str, Any]:
    """The custom fields that tell how reading the checkpoint went."""
    if spec is not None:
        return {"spec_status": "completed", "spec_error": None}
    return {"spec_status": "failed", "spec_error": why}
