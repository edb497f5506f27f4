"""Model entities in the database: what reading them costs."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import event

from tunesmith.api import filters
from tunesmith.api.base import PageRequest
from tunesmith.api.filesets import CreateFileset
from tunesmith.api.models import CreateModel, ModelSpec
from tunesmith.refs import Ref
from tunesmith.store.database import Database, Tx
from tunesmith.store.models import PendingModel

SPEC = ModelSpec(
    checkpoint_model_name="X", family="llama", num_layers=1, hidden_size=1, num_attention_heads=1, num_kv_heads=1,
    ffn_hidden_size=1, vocab_size=1, tied_embeddings=False, gated_mlp=False, base_num_parameters=1, precision="float32",
)  # fmt: skip


def fill(tx: Tx, models: int) -> None:
    tx.filesets.create("default", CreateFileset(name="files"))
    for i in range(models):
        model = tx.models.create("default", CreateModel(name=f"m{i}", fileset="files"), Ref("default", "files"))
        for j in range(2):
            tx.adapters.create(
                Ref("default", f"a{i}-{j}"),
                model_id=model.id,
                model=Ref("default", f"m{i}"),
                fileset=Ref("default", "files"),
                description=None,
                rank=1,
                alpha=0.5,
            )


async def counted(database: Database, verb: Any) -> int:
    """Statements that a verb sends."""
    seen: list[str] = []

    def count(tx: Tx) -> None:
        engine = tx.connection.engine
        event.listen(engine, "before_cursor_execute", note)
        try:
            verb(tx)
        finally:
            event.remove(engine, "before_cursor_execute", note)

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    await database.read(count)
    return len(seen)


async def check_queries(database: Database) -> None:
    await database.write(fill, 20)
    one = await counted(database, lambda tx: tx.models.get("default", "m3"))
    few = await counted(database, lambda tx: tx.models.page("default", PageRequest(page_size=2, sort="name")))
    many = await counted(database, lambda tx: tx.models.page("default", PageRequest(page_size=20, sort="name")))
    assert one <= 3
    assert many <= few <= 6


def test_queries_do_not_grow_with_the_page(database: Database) -> None:
    asyncio.run(check_queries(database))


async def check_rounds(database: Database) -> None:
    ref = Ref("default", "files")
    await database.write(fill, 1)
    (before,) = await database.read(lambda tx: tx.models.pending(5))
    assert before == PendingModel(before.id, Ref("default", "m0"), ref, 0)
    assert await database.write(lambda tx: tx.models.fileset_changed(ref))
    assert not await database.write(lambda tx: tx.models.read_spec(before, SPEC))
    assert (await database.read(lambda tx: tx.models.get("default", "m0"))).spec is None
    (after,) = await database.read(lambda tx: tx.models.pending(5))
    assert after.round == 1
    assert await database.write(lambda tx: tx.models.read_spec(after, SPEC))
    assert (await database.read(lambda tx: tx.models.get("default", "m0"))).spec == SPEC
    assert await database.read(lambda tx: tx.models.pending(5)) == []


def test_what_was_read_from_an_older_state_of_the_fileset_is_not_kept(database: Database) -> None:
    asyncio.run(check_rounds(database))


async def check_filters(database: Database) -> None:
    await database.write(fill, 3)
    found = {}
    for field, value in (
        ("base_model", "false"),
        ("finetuning_type", "true"),
        ("prompt", "true"),
        ("fileset", "default/files"),
        ("fileset", "files"),
        ("adapters", "true"),
        ("adapters", "false"),
        ("adapters.name", "a1-0"),
        ("adapters.enabled", "true"),
        ("adapters.finetuning_type", "dora"),
        ("lora_enabled", "false"),
        ("custom_fields.spec_status", "pending"),
        ("custom_fields.team", "blue"),
        ("spec.family", "llama"),
        ("trust_remote_code", "false"),
    ):
        asked = PageRequest(filter=filters.Test(field, filters.Op.EQ, value))
        page = await database.read(lambda tx, asked=asked: tx.models.page("default", asked))
        found[f"{field}={value}"] = page.pagination.total_results
    assert found == {
        "base_model=false": 3,
        "finetuning_type=true": 0,
        "prompt=true": 0,
        "fileset=default/files": 3,
        "fileset=files": 3,
        "adapters=true": 3,
        "adapters=false": 0,
        "adapters.name=a1-0": 1,
        "adapters.enabled=true": 3,
        "adapters.finetuning_type=dora": 0,
        "lora_enabled=false": 3,
        "custom_fields.spec_status=pending": 3,
        "custom_fields.team=blue": 0,
        "spec.family=llama": 0,
        "trust_remote_code=false": 3,
    }


def test_every_question_about_models_is_one_that_the_database_answers(database: Database) -> None:
    asyncio.run(check_filters(database))


async def check_half(database: Database) -> None:
    await database.write(fill, 1)
    adapter = await database.read(lambda tx: tx.adapters.get("default", "a0-0"))
    assert adapter.lora_config is not None
    assert (adapter.lora_config.rank, adapter.lora_config.alpha) == (1, 0.5)
    (first, _) = await database.read(lambda tx: tx.adapters.servable(Ref("default", "m0")))
    assert first.fetched
    await database.write(lambda tx: tx.filesets.drop("default", "files"))
    assert await database.read(lambda tx: tx.adapters.servable(Ref("default", "m0"))) == []


def test_an_adapter_whose_fileset_is_gone_is_out_of_service_and_still_there(database: Database) -> None:
    asyncio.run(check_half(database))
