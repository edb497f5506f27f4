"""What a list of models may be narrowed by. Some fields are questions and no columns: contract 1.4."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_

from tunesmith.api.filters import Op, Test
from tunesmith.errors import BadRequest
from tunesmith.store.filtering import Field, condition, truth
from tunesmith.store.tables import adapters, deployments, models

SPEC_FIELDS = ("spec_status", "spec_error")
"""Keys of custom_fields that the platform writes; they are columns, and what a user sends under them is not kept."""


def _adapter_with(*where: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(adapters.c.model_id == models.c.id, *where)


def _adapter_like(name: str, op: Op, value: Any) -> ColumnElement[bool]:
    return _adapter_with(condition(Test(name, op, value), {name: adapters.c[name]}))


def _lora_deployment() -> ColumnElement[bool]:
    return exists().where(
        deployments.c.model_ref == models.c.workspace + "/" + models.c.name,
        deployments.c.lora_enabled,
        deployments.c.status != "DELETING",
    )


def _presence(there: ColumnElement[bool], name: str, op: Op, value: Any) -> ColumnElement[bool]:
    """Whether there is one at all: `filter[x]=true` and `filter[x][$exists]=true` are the same question."""
    if op not in (Op.EQ, Op.EXISTS):
        raise BadRequest(f"filter: {name} is there or not; it is held against true or false, not with {op}")
    return there if truth(name, value) else ~there


def _value_or_presence(column: Any, op: Op, value: Any) -> ColumnElement[bool]:
    if op is Op.EQ and str(value).lower() in ("true", "false"):
        return _presence(column.is_not(None), column.name, op, value)
    return condition(Test(column.name, op, value), {column.name: column})


def _either(given: Any, resolved: Any, op: Op, value: Any) -> ColumnElement[bool]:
    """A reference may be asked for as it was sent or as `workspace/name`."""
    fields: dict[str, Field] = {"given": given, "resolved": resolved}
    both = [condition(Test(name, op, value), fields) for name in fields]
    return and_(*both) if op is Op.NIN else or_(*both)


FIELDS: Mapping[str, Field] = {
    "fileset": partial(_either, models.c.fileset, models.c.fileset_ref),
    "base_model": partial(_value_or_presence, models.c.base_model),
    "base_model.name": models.c.base_model,
    "finetuning_type": partial(_value_or_presence, models.c.finetuning_type),
    "prompt": partial(_presence, models.c.prompt.is_not(None), "prompt"),
    "trust_remote_code": models.c.trust_remote_code,
    "backend_format": models.c.backend_format,
    "custom_fields": models.c.custom_fields,
    **{f"custom_fields.{name}": models.c[name] for name in SPEC_FIELDS},
    "spec": models.c.spec,
    "adapters": partial(_presence, _adapter_with(), "adapters"),
    **{
        f"adapters.{name}": partial(_adapter_like, name)
        for name in ("name", "description", "finetuning_type", "enabled", "created_at", "updated_at")
    },
    "lora_enabled": partial(_presence, _lora_deployment(), "lora_enabled"),
}
"""Beside what every noun may be filtered by."""
