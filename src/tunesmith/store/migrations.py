"""Brings a database to the shape of `tables` when the server starts.

A fresh database is made straight from `tables`. An older one is rebuilt, in one transaction: its tables are set aside,
made anew, and filled row by row, each row going through the steps its version has not seen. A step says what a row's
new columns hold, never how a table is made; one that has been released does not change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import JSON, Connection, Table, text
from sqlalchemy.exc import SQLAlchemyError

from tunesmith.errors import ServerStartError
from tunesmith.store.ids import new_id, now
from tunesmith.store.tables import metadata, workspaces

VERSION = 2

SEEDED = {
    "default": "General-purpose workspace",
    "system": "Resources that the platform provides",
}

Row = dict[str, Any]
"""As SQLite stores it: JSON and times are text."""
Step = Mapping[str, Callable[[Connection, Row], Row]]
"""By table: the columns that a row gets, beside those it has. The old tables are there as `old_...`."""


def migrate(connection: Connection) -> None:
    """Bring the database to the present version, in the connection's transaction.

    ServerStartError when it was written by a newer one.
    """
    connection.execute(text("create table if not exists schema_version (version integer not null)"))
    version = connection.execute(text("select version from schema_version")).scalar()
    if version == VERSION:
        return
    if version is None:
        _make(connection)
        connection.execute(text("insert into schema_version (version) values (:version)"), {"version": VERSION})
        return
    if version > VERSION:
        raise ServerStartError(
            f"the database has schema version {version}, this build knows {VERSION}: run the newer Tunesmith again"
        )
    try:
        _rebuild(connection, [STEPS[older] for older in range(version, VERSION)])
    except SQLAlchemyError as error:
        raise ServerStartError(
            f"the database could not be brought from version {version} to {VERSION}, and stays as it was: {error}; "
            "the older Tunesmith still runs on it, and a copy of it in a bug report would help"
        ) from error
    connection.execute(text("update schema_version set version = :version"), {"version": VERSION})


def seed(connection: Connection) -> None:
    """The two workspaces that every installation has."""
    for name, description in SEEDED.items():
        at = now()
        connection.execute(
            workspaces.insert().values(
                id=new_id("workspace"), name=name, description=description, created_at=at, updated_at=at
            )
        )


def _make(connection: Connection) -> None:
    metadata.create_all(connection)
    seed(connection)


def _rebuild(connection: Connection, steps: list[Step]) -> None:
    """SQLite only: PostgreSQL has known no version but this one."""
    listed = "select name from sqlite_master where type = :type and sql is not null"
    for index in connection.execute(text(listed), {"type": "index"}).scalars().all():
        connection.exec_driver_sql(f'drop index "{index}"')
    there = set(connection.execute(text(listed), {"type": "table"}).scalars())
    old = [table for table in metadata.sorted_tables if table.name in there]
    for table in old:
        connection.exec_driver_sql(f'alter table "{table.name}" rename to "old_{table.name}"')
    metadata.create_all(connection)
    for table in old:
        _copy(connection, table, [step[table.name] for step in steps if table.name in step])
    for table in reversed(old):
        connection.exec_driver_sql(f'drop table "old_{table.name}"')
    if broken := connection.exec_driver_sql("pragma foreign_key_check").first():
        raise ServerStartError(
            f"the database is damaged: a row of {broken[0]} refers to a row of {broken[2]} that is not there; "
            "put back a backup, or ask for help with a copy of it"
        )


def _copy(connection: Connection, table: Table, steps: list[Callable[[Connection, Row], Row]]) -> None:
    had = {row[1] for row in connection.exec_driver_sql(f'pragma table_info("old_{table.name}")')}
    if not steps:
        kept = [column for column in table.columns if column.name in had]
        names = ", ".join(f'"{column.name}"' for column in kept)
        values = ", ".join(  # a JSON null is nothing
            f"nullif(\"{column.name}\", 'null')"
            if isinstance(column.type, JSON) and column.nullable
            else f'"{column.name}"'
            for column in kept
        )
        connection.exec_driver_sql(f'insert into "{table.name}" ({names}) select {values} from "old_{table.name}"')  # noqa: S608
        return
    for found in connection.exec_driver_sql(f'select * from "old_{table.name}"').mappings():  # noqa: S608
        row: Row = dict(found)
        for step in steps:
            row.update(step(connection, row))
        held = {
            column.name: None if isinstance(column.type, JSON) and row[column.name] == "null" else row[column.name]
            for column in table.columns
            if column.name in row
        }
        names = ", ".join(f'"{name}"' for name in held)
        places = ", ".join("?" for _ in held)
        connection.exec_driver_sql(f'insert into "{table.name}" ({names}) values ({places})', tuple(held.values()))  # noqa: S608


def _model_of_1(_connection: Connection, row: Row) -> Row:
    """0.1 read less out of a checkpoint, and kept the state of that among the custom fields: all are read again."""
    written_by_us = ("spec_status", "spec_error")
    custom = {key: value for key, value in json.loads(row["custom_fields"]).items() if key not in written_by_us}
    return {
        "fileset_ref": row["fileset"],
        "spec": None,
        "spec_status": "pending",
        "spec_error": None,
        "spec_round": 0,
        "trust_remote_code": False,
        "model_providers": "[]",
        "custom_fields": json.dumps(custom, ensure_ascii=False),
    }


def _adapter_of_1(connection: Connection, row: Row) -> Row:
    """0.1 pointed at model and fileset by their ids."""
    return {
        "model_ref": _ref(connection, "old_models", row["model_id"]),
        "fileset_ref": _ref(connection, "old_filesets", row["fileset_id"]),
    }


def _job_of_1(_connection: Connection, row: Row) -> Row:
    """0.1 knew one dialect, and jobs that make an adapter on one device."""
    spec = json.loads(row["spec"])
    lora = (json.loads(row["plan"]) or {}).get("adapter") or {}
    result = {"kind": "adapter", "finetuning_type": "lora", "description": spec["output"].get("description")}
    return {
        "source": "customization",
        "spec_digest": "",
        "result": json.dumps({**result, "rank": lora.get("rank"), "alpha": lora.get("alpha"), "deployment": None}),
        "secrets": "[]",
        "needs": json.dumps({"devices": 1, "nodes": 1, "named": [], "profile": None}),
        "priority": 0,
        "attempt_step": 0,
    }


def _ref(connection: Connection, table: str, row_id: str) -> str:
    query = f"select workspace || '/' || name from {table} where id = ?"  # noqa: S608
    found: str = connection.exec_driver_sql(query, (row_id,)).scalar_one()
    return found


STEPS: Mapping[int, Step] = {1: {"models": _model_of_1, "adapters": _adapter_of_1, "jobs": _job_of_1}}
"""By the version that a step starts from."""
