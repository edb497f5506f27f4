"""Every operator on every kind of column, the same answer from both databases."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select

from tunesmith.api import filters
from tunesmith.api.filter_query import parse
from tunesmith.api.filters import Filter, Op
from tunesmith.errors import BadRequest
from tunesmith.store.database import Database, Tx
from tunesmith.store.filtering import condition
from tunesmith.store.tables import adapters, models

CUSTOM: dict[str, dict[str, Any]] = {
    "plain": {"team": "Red_Team%", "runs": 5, "live": True, "tags": ["a", "b", 3, True], "deep": {"é k": "x/y"}},
    "other": {"team": "blue", "runs": 12.5, "live": False, "tags": "ab", "a.b": "dotted"},
    "empty": {"runs": "7", "team": None},
}
AT = datetime.fromisoformat("2026-01-02T03:04:05.000600")


def fill(tx: Tx) -> None:
    common: dict[str, Any] = {"spec_status": "none", "spec_round": 0, "trust_remote_code": False}
    row = tx.models.insert(
        "default",
        "plain",
        custom_fields=CUSTOM["plain"],
        description="A 100% Größe",
        model_providers=["default/x"],
        **common,
    )
    tx.models.insert(
        "default", "other", custom_fields=CUSTOM["other"], base_model="default/plain", model_providers=[], **common
    )
    tx.models.insert(
        "default", "empty", custom_fields=CUSTOM["empty"], spec={"family": "llama"}, model_providers=[], **common
    )
    for name, enabled, rank in (("on", True, 8), ("off", False, None)):
        tx.adapters.insert(
            "default",
            name,
            model_id=row["id"],
            model_ref="default/plain",
            fileset_ref="default/f",
            finetuning_type="lora",
            enabled=enabled,
            rank=rank,
        )
    tx.connection.execute(models.update().where(models.c.name == "plain").values(created_at=AT))


def found(database: Database, table: Any, narrowed: Filter) -> set[str]:
    where = condition(narrowed, dict(table.c))
    return set(
        asyncio.run(database.read(lambda tx: tx.connection.execute(select(table.c.name).where(where)).scalars().all()))
    )


@pytest.fixture
def filled(database: Database) -> Database:
    asyncio.run(database.write(fill))
    return database


MODELS: list[tuple[str, Op, Any, str]] = [
    ("name", Op.EQ, "plain", "plain"),
    ("name", Op.EQ, "PLAIN", ""),
    ("name", Op.LIKE, "LA", "plain"),
    ("name", Op.CONTAINS, "t", "other empty"),
    ("name", Op.GT, "other", "plain"),
    ("name", Op.GTE, "other", "other plain"),
    ("name", Op.LT, "other", "empty"),
    ("name", Op.LTE, "other", "empty other"),
    ("name", Op.IN, ["plain", "nobody"], "plain"),
    ("name", Op.IN, [], ""),
    ("name", Op.NIN, ["plain"], "other empty"),
    ("name", Op.NIN, [], "plain other empty"),
    ("name", Op.EQ, "'; drop table models; --", ""),
    ("description", Op.LIKE, "100%", "plain"),
    ("description", Op.LIKE, "_", ""),
    ("description", Op.LIKE, "%", "plain"),
    ("description", Op.LIKE, "größe", "plain"),
    ("description", Op.EQ, None, "other empty"),
    ("description", Op.EXISTS, "true", "plain"),
    ("description", Op.EXISTS, False, "other empty"),
    ("description", Op.IN, [None, "x"], "other empty"),
    ("description", Op.NIN, ["x"], "plain other empty"),
    ("description", Op.NIN, [None], "plain"),
    ("base_model", Op.EQ, "default/plain", "other"),
    ("created_at", Op.EQ, "2026-01-02T03:04:05.000600", "plain"),
    ("created_at", Op.EQ, "2026-01-02T03:04:05.000600Z", "plain"),
    ("created_at", Op.EQ, "2026-01-02T05:04:05.000600+02:00", "plain"),
    ("created_at", Op.LT, "2026-01-02T03:04:06Z", "plain"),
    ("created_at", Op.GTE, "2026-01-03", "other empty"),
    ("created_at", Op.LIKE, "2026-01-02", "plain"),
    ("trust_remote_code", Op.EQ, "false", "plain other empty"),
    ("trust_remote_code", Op.EQ, True, ""),
    ("spec", Op.EXISTS, True, "empty"),
    ("spec", Op.EQ, None, "plain other"),
    ("spec.family", Op.EQ, "llama", "empty"),
    ("model_providers", Op.CONTAINS, "default/x", "plain"),
    ("model_providers", Op.CONTAINS, "default", ""),
    ("model_providers", Op.LIKE, "default", "plain"),
    ("custom_fields.team", Op.EQ, "blue", "other"),
    ("custom_fields.team", Op.LIKE, "red_", "plain"),
    ("custom_fields.team", Op.CONTAINS, "TEAM%", "plain"),
    ("custom_fields.team", Op.EQ, None, "empty"),
    ("custom_fields.team", Op.EXISTS, True, "plain other"),
    ("custom_fields.team", Op.IN, ["blue", None], "other empty"),
    ("custom_fields.team", Op.NIN, ["blue"], "plain empty"),
    ("custom_fields.team", Op.GT, "b", "other"),
    ("custom_fields.runs", Op.EQ, "5", "plain"),
    ("custom_fields.runs", Op.EQ, 5, "plain"),
    ("custom_fields.runs", Op.EQ, 5.0, "plain"),
    ("custom_fields.runs", Op.EQ, "7", "empty"),
    ("custom_fields.runs", Op.GT, 9, "other"),
    ("custom_fields.runs", Op.GT, "4.5", "plain other"),
    ("custom_fields.runs", Op.IN, [5, "7"], "plain empty"),
    ("custom_fields.live", Op.EQ, "true", "plain"),
    ("custom_fields.live", Op.EQ, False, "other"),
    ("custom_fields.tags", Op.CONTAINS, "b", "plain other"),
    ("custom_fields.tags", Op.CONTAINS, 3, "plain"),
    ("custom_fields.tags", Op.CONTAINS, True, "plain"),
    ("custom_fields.tags", Op.CONTAINS, "c", ""),
    ('custom_fields.deep["é k"]', Op.EQ, "x/y", "plain"),
    ('custom_fields["a.b"]', Op.EQ, "dotted", "other"),
    ("custom_fields.a.b", Op.EXISTS, True, ""),
    ("custom_fields.{team,b}", Op.EQ, "x", ""),
    ('custom_fields["\'); drop table models"]', Op.EQ, "x", ""),
]
ADAPTERS: list[tuple[str, Op, Any, str]] = [
    ("enabled", Op.EQ, "false", "off"),
    ("enabled", Op.EQ, True, "on"),
    ("enabled", Op.IN, ["true", False], "on off"),
    ("rank", Op.EQ, "8", "on"),
    ("rank", Op.EQ, 8.0, "on"),
    ("rank", Op.EQ, 8.5, ""),
    ("rank", Op.GT, 7.5, "on"),
    ("rank", Op.LT, 2**40, "on"),
    ("rank", Op.IN, ["8", 2**60], "on"),
    ("rank", Op.NIN, [8], "off"),
    ("rank", Op.EQ, None, "off"),
    ("rank", Op.LIKE, "8", "on"),
]


def test_operators_on_models(filled: Database) -> None:
    wrong = [
        (name, op.value, value, got)
        for name, op, value, wanted in MODELS
        if (got := found(filled, models, filters.Test(name, op, value))) != set(wanted.split())
    ]
    assert wrong == []


def test_operators_on_adapters(filled: Database) -> None:
    wrong = [
        (name, op.value, value, got)
        for name, op, value, wanted in ADAPTERS
        if (got := found(filled, adapters, filters.Test(name, op, value))) != set(wanted.split())
    ]
    assert wrong == []


def test_and_or_not(filled: Database) -> None:
    def text(query: str) -> set[str]:
        tree = parse([("filter", query)])
        assert tree is not None
        return found(filled, models, tree)

    assert text('name:"plain" OR name:"other"') == {"plain", "other"}
    assert text('-name:"plain" description:null') == {"other", "empty"}
    assert text('-description~"100"') == {"other", "empty"}
    assert text('-(-name:"plain")') == {"plain"}
    assert text(" ".join(["-base_model:null"] * 200)) == {"other"}
    assert text("-" * 18 + 'name:"plain"') == {"plain"}


@pytest.mark.parametrize(
    ("name", "op", "value", "said"),
    [
        ("nothing", Op.EQ, "x", r"^Unknown filter field 'nothing'. Valid fields: .*'name'"),
        ("name.x", Op.EQ, "x", "Unknown filter field 'name.x'"),
        ("created_at", Op.EQ, "yesterday", "created_at must be a date and time"),
        ("created_at", Op.LT, "0001-01-01T00:00:00+14:00", "created_at must be a date and time"),
        ("trust_remote_code", Op.EQ, "perhaps", "must be true or false, not 'perhaps'"),
        ("trust_remote_code", Op.LIKE, "t", "use \\$eq"),
        ("name", Op.GT, None, "cannot be held against null with \\$gt"),
        ("name", Op.LIKE, None, "needs a text to look for"),
        ("name", Op.EXISTS, "perhaps", "must be true or false"),
        ("custom_fields", Op.EQ, "x", "name a key in it, as in custom_fields.key"),
        ('custom_fields["a\\"b"]', Op.EQ, "x", "a key with quotes"),
        ('custom_fields["a\\u0001"]', Op.EQ, "x", "a key with quotes"),
        ("spec_round", Op.EQ, "many", "must be a number"),
        ("spec_round", Op.EQ, "1" * 400, "must be a number"),
        ("spec_round", Op.EQ, "nan", "must be a number"),
        ("spec_round", Op.EQ, True, "must be a number"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(name: str, op: Op, value: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        condition(filters.Test(name, op, value), dict(models.c))
