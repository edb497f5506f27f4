"""A database of the version before comes to the present shape and keeps what it held."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tunesmith.api.base import PageRequest
from tunesmith.errors import ServerStartError
from tunesmith.refs import Ref
from tunesmith.store.database import Database

VERSION_1 = (Path(__file__).parent / "version1.sql").read_text()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The file of a server of version 0.1."""
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(VERSION_1)
    connection.close()
    return path


def shape(path: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as connection:
        return sorted(connection.execute("select type, name, tbl_name, sql from sqlite_master").fetchall())


def counts(path: Path) -> dict[str, int]:
    with sqlite3.connect(path) as connection:
        tables = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        return {table: connection.execute(f'select count(*) from "{table}"').fetchone()[0] for table in tables}


def test_an_old_database_gets_the_shape_of_a_new_one(old: Path, tmp_path: Path) -> None:
    Database(old).close()
    Database(tmp_path / "new.db").close()
    assert shape(old) == shape(tmp_path / "new.db")


def test_no_row_is_lost(old: Path) -> None:
    before = counts(old)
    Database(old).close()
    after = counts(old)
    assert {table: after[table] for table in before} == before


def test_models_of_0_1_stay_and_are_read_again(old: Path) -> None:
    database = Database(old)
    base = asyncio.run(database.read(lambda tx: tx.models.row("default", "base")))
    assert (base["fileset"], base["fileset_ref"], base["description"]) == (
        "default/weights",
        "default/weights",
        "a base",
    )
    assert (base["spec"], base["spec_status"], base["spec_error"]) == (None, "pending", None)
    assert (base["trust_remote_code"], base["model_providers"]) == (False, [])
    assert base["custom_fields"] == {"mine": 1}
    tuned = asyncio.run(database.read(lambda tx: tx.models.get("default", "broken")))
    assert (tuned.base_model, tuned.finetuning_type) == ("default/base", "lora")


def test_adapters_of_0_1_name_model_and_fileset(old: Path) -> None:
    database = Database(old)
    (adapter,) = asyncio.run(database.read(lambda tx: tx.adapters.page("default", PageRequest()))).data
    assert (adapter.name, adapter.model, adapter.fileset) == ("tuned", "default/base", "default/tuned")
    (served,) = asyncio.run(database.read(lambda tx: tx.adapters.servable(Ref("default", "base"))))
    assert [file.digest for file in served.snapshot.files] == ["bb22"]


def test_a_json_null_of_0_1_is_nothing(old: Path) -> None:
    Database(old).close()
    with sqlite3.connect(old) as connection:
        assert connection.execute("select error_details, custom_fields from jobs").fetchall() == [
            (None, '{"priority": 1}')
        ]


def test_a_migration_that_fails_changes_nothing(old: Path) -> None:
    with sqlite3.connect(old) as connection:
        connection.execute("update adapters set model_id = 'model-gone'")
    before = shape(old), counts(old)
    with pytest.raises(ServerStartError, match="could not be brought from version 1"):
        Database(old)
    assert (shape(old), counts(old)) == before


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    database = Database(tmp_path / "t.db")
    asyncio.run(database.write(lambda tx: tx.connection.execute(text("update schema_version set version = 999"))))
    database.close()
    with pytest.raises(ServerStartError, match="schema version 999"):
        Database(tmp_path / "t.db")
