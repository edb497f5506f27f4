"""Model entities in the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, and_, bindparam, delete, exists, insert, select, update

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.models import Adapter, CreateModel, Model, ModelFields, ModelSpec, UpdateModel
from tunesmith.errors import Conflict, NotFound
from tunesmith.refs import Ref, check_name
from tunesmith.store.adapters import Adapters
from tunesmith.store.model_filter import FIELDS, SPEC_FIELDS
from tunesmith.store.rows import Named
from tunesmith.store.tables import adapters, deployments, jobs, model_layers, models

FAILED_NOTE_LIMIT = 2000
"""Characters of a reason why a checkpoint could not be read."""


# Made once, since building a statement takes longer than running it.
_SERVED = deployments.c.status == "READY"
_ONE = select(
    models,
    exists().where(adapters.c.model_id == models.c.id).label("has_adapters"),
    exists().where(deployments.c.model_ref == models.c.workspace + "/" + models.c.name, _SERVED).label("is_served"),
).where(models.c.workspace == bindparam("workspace"), models.c.name == bindparam("name"))
_ADAPTERS = (
    select(adapters)
    .where(adapters.c.model_id.in_(bindparam("ids", expanding=True)))
    .order_by(adapters.c.created_at, adapters.c.id)
)
_SERVING = (
    select(deployments.c.model_ref, deployments.c.workspace, deployments.c.name)
    .where(deployments.c.model_ref.in_(bindparam("refs", expanding=True)), _SERVED)
    .order_by(deployments.c.created_at)
)


@dataclass(frozen=True, slots=True)
class PendingModel:
    """A model whose checkpoint is to be read."""

    id: str
    ref: Ref
    fileset: Ref
    round: int
    """Of which state of its fileset a result will be; another state makes another round."""


_READ_AGAIN = (
    update(models)
    .where(models.c.fileset_ref == bindparam("read_from"), models.c.spec_status.in_(("pending", "completed", "failed")))
    .values(spec=None, spec_status="pending", spec_error=None, spec_round=models.c.spec_round + 1)
)
"""Made once: each upload runs it, and making it takes longer."""


class Models(Named):
    """A checkpoint, what it says about itself, and its adapters."""

    table = models
    kind = "model"
    missing = "Model with workspace '{workspace}' and name '{name}' not found"
    twin = "Model with workspace '{workspace}' and name '{name}' already exists"
    filterable = FIELDS

    # -- what users do ---------------------------------------------------------------------------------------------

    def create(self, workspace: str, asked: CreateModel, fileset: Ref | None) -> Model:
        """A new model entity, its spec as given, else pending, else none without a checkpoint."""
        name = check_name(asked.name)
        if Adapters(self.connection).find_row(workspace, name) is not None:
            raise Conflict(f"An adapter '{workspace}/{name}' exists; a model of that name could not be told from it")
        values = {"model_providers": [], "custom_fields": {}, "trust_remote_code": False, **_given(asked)}
        row = self.insert(
            workspace,
            name,
            project=asked.project,
            **values,
            fileset_ref=fileset and str(fileset),
            spec=_stored(asked.spec),
            spec_status="given" if asked.spec else "pending" if fileset else "none",
        )
        if asked.spec is not None:
            self._keep_layers(row["id"], asked.spec)
        return _model(row, [], [], None)

    def get(self, workspace: str, name: str, verbose: bool = False) -> Model:
        """The model with its adapters; `linear_layers` only when verbose; NotFound without it."""
        found = self.connection.execute(_ONE, {"workspace": workspace, "name": name}).mappings().one_or_none()
        if found is None:
            raise NotFound(self.missing.format(workspace=workspace, name=name))
        if verbose or found["has_adapters"] or found["is_served"]:
            return self._read_one(found, verbose)
        return _model(found, [], [], None)

    def page(self, workspace: str, asked: PageRequest, verbose: bool = False) -> Page[Model]:
        """One page of a workspace's models."""
        return self.page_of(workspace, asked, lambda rows: self.read(rows, verbose))

    def update(self, workspace: str, name: str, asked: UpdateModel, fileset: Ref | None, verbose: bool) -> Model:
        """Change what is given. A new fileset, or none of a spec so far, makes the spec pending again."""
        row = self.row(workspace, name)
        changes = _given(asked)
        if asked.project is not None:
            changes["project"] = asked.project
        if fileset is not None:
            changes["fileset_ref"] = str(fileset)
        if asked.spec is not None:
            changes |= {"spec": _stored(asked.spec), "spec_status": "given", "spec_error": None}
            if fileset is not None or asked.spec.linear_layers is not None:  # else they stay: few readers see them
                self._keep_layers(row["id"], asked.spec)
        elif fileset is not None or (row["spec"] is None and row["fileset_ref"] is not None):
            changes |= {"spec": None, "spec_status": "pending", "spec_error": None}
        if "spec_status" in changes:
            changes["spec_round"] = row["spec_round"] + 1
        return self._read_one(self.change(row, **changes) if changes else row, verbose)

    def remove(self, workspace: str, name: str) -> None:
        """Take the model out, and its adapters with it; their filesets stay. NotFound without it."""
        self.delete(workspace, name)

    def users(self, ref: Ref) -> list[str]:
        """What still needs the model: deployments that are not on their way out, jobs that have not ended."""
        served = select(deployments.c.workspace, deployments.c.name).where(
            deployments.c.model_ref == str(ref), deployments.c.status != "DELETING"
        )
        trained = select(jobs.c.workspace, jobs.c.name).where(jobs.c.model_ref == str(ref), jobs.c.phase != "done")
        return [
            *(f"deployment {each.workspace}/{each.name}" for each in self.connection.execute(served)),
            *(f"job {each.workspace}/{each.name}" for each in self.connection.execute(trained)),
        ]

    # -- the spec --------------------------------------------------------------------------------------------------

    def fileset_changed(self, ref: Ref) -> bool:
        """The files or the metadata of a fileset are other ones: specs read from it are pending again.

        Part of the transaction that changes the fileset. Whether there are any; then wake the analysis.
        """
        return self.connection.execute(_READ_AGAIN, {"read_from": str(ref)}).rowcount > 0

    def pending(self, limit: int) -> list[PendingModel]:
        """Models whose checkpoint is to be read: those that failed for a passing reason after the others."""
        query = select(models).where(models.c.spec_status == "pending", models.c.fileset_ref.is_not(None))
        order = (models.c.spec_error.is_not(None), models.c.created_at, models.c.id)
        return [pending(row) for row in self.connection.execute(query.order_by(*order).limit(limit)).mappings()]

    def read_spec(self, model: PendingModel, spec: ModelSpec | None, why: str = "") -> bool:
        """The result of reading: a spec, or why there is none. False when it is of a state that is gone."""
        values = {
            "spec": _stored(spec),
            "spec_status": "completed" if spec else "failed",
            "spec_error": why[:FAILED_NOTE_LIMIT] or None,
        }
        current = and_(models.c.id == model.id, models.c.spec_round == model.round, models.c.spec_status != "given")
        written = self.connection.execute(update(models).where(current).values(**values)).rowcount > 0
        if written:
            self._keep_layers(model.id, spec)
        return written

    def note_trouble(self, model: PendingModel, why: str) -> None:
        """Why the checkpoint could not be read for now; it stays pending."""
        current = and_(models.c.id == model.id, models.c.spec_round == model.round, models.c.spec_status == "pending")
        self.connection.execute(update(models).where(current).values(spec_error=why[:FAILED_NOTE_LIMIT]))

    def layers(self, model_id: str) -> list[dict[str, Any]] | None:
        """The linear layers of a model as its spec lists them; None when they are not known."""
        query = select(model_layers.c.layers).where(model_layers.c.model_id == model_id)
        found: list[dict[str, Any]] | None = self.connection.execute(query).scalar()
        return found

    def _keep_layers(self, model_id: str, spec: ModelSpec | None) -> None:
        self.connection.execute(delete(model_layers).where(model_layers.c.model_id == model_id))
        if spec is not None and spec.linear_layers is not None:
            layers = [layer.model_dump() for layer in spec.linear_layers]
            self.connection.execute(insert(model_layers).values(model_id=model_id, layers=layers))

    # -- rows as the wire sees them --------------------------------------------------------------------------------

    def read(self, rows: Sequence[RowMapping], verbose: bool = False) -> list[Model]:
        """Rows of the table with their adapters and providers: two or three queries for however many."""
        ids = [row["id"] for row in rows]
        held: dict[str, list[Adapter]] = {}
        found = self.connection.execute(_ADAPTERS, {"ids": ids}).mappings().all()
        for row, adapter in zip(found, Adapters(self.connection).read(found), strict=True):
            held.setdefault(row["model_id"], []).append(adapter)
        providers: dict[str, list[str]] = {}
        refs = [f"{row['workspace']}/{row['name']}" for row in rows]
        for each in self.connection.execute(_SERVING, {"refs": refs}):
            providers.setdefault(each.model_ref, []).append(f"{each.workspace}/{each.name}")
        layers: dict[str, Any] = {}
        if verbose:
            kept = select(model_layers).where(model_layers.c.model_id.in_(ids))
            layers = {each.model_id: each.layers for each in self.connection.execute(kept)}
        return [
            _model(row, held.get(row["id"], []), providers.get(ref, []), layers.get(row["id"]))
            for row, ref in zip(rows, refs, strict=True)
        ]

    def _read_one(self, row: RowMapping, verbose: bool = False) -> Model:
        (model,) = self.read([row], verbose)
        return model


def pending(row: RowMapping) -> PendingModel:
    """A row of the table as the analysis sees it; it has a fileset."""
    return PendingModel(
        row["id"], Ref(row["workspace"], row["name"]), Ref.unchecked(row["fileset_ref"]), row["spec_round"]
    )


def _given(asked: ModelFields) -> dict[str, Any]:
    """The columns that a request gives values to, spec and project apart; null gives none, but to backend_format."""
    plain = ("description", "fileset", "base_model", "finetuning_type", "trust_remote_code")
    values = {name: getattr(asked, name) for name in plain if getattr(asked, name) is not None}
    if "backend_format" in asked.model_fields_set:
        values["backend_format"] = asked.backend_format
    for name in ("ownership", "model_providers"):
        if (value := getattr(asked, name)) is not None:
            values[name] = value
    if asked.custom_fields is not None:
        values["custom_fields"] = {key: each for key, each in asked.custom_fields.items() if key not in SPEC_FIELDS}
    for name, body in (("api_endpoint", asked.api_endpoint), ("prompt", asked.prompt)):
        if body is not None:
            values[name] = body.model_dump(mode="json")
    return values


def _stored(spec: ModelSpec | None) -> dict[str, Any] | None:
    """A spec without its linear layers, which are kept apart."""
    return None if spec is None else spec.model_dump(mode="json", exclude={"linear_layers"})


def _model(row: RowMapping, held: Iterable[Adapter], providers: list[str], layers: list[Any] | None) -> Model:
    state = {name: row[name] for name in SPEC_FIELDS if row[name] not in (None, "none")}
    given = row["model_providers"]
    return Model.model_validate(
        {
            **row,
            "spec": row["spec"] and {**row["spec"], "linear_layers": layers},
            "custom_fields": {**row["custom_fields"], **state},
            "adapters": list(held),
            "model_providers": [*given, *(each for each in providers if each not in given)],
        }
    )
