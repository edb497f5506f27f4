"""Brings a database to the shape of `tables`, one numbered step after another, when the server starts.

A step that has been released never changes; a new shape is a new step at the end of `STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, text

from tunesmith.errors import ServerStartError
from tunesmith.store.ids import new_id, now
from tunesmith.store.tables import metadata, workspaces

SEEDED = {
    "default": "General-purpose workspace",
    "system": "Resources that the platform provides",
}


def first_tables(connection: Connection) -> None:
    """0.1: all tables, and the two workspaces that every installation has."""
    metadata.create_all(connection)
    for name, description in SEEDED.items():
        at = now()
        connection.execute(
            workspaces.insert().values(
                id=new_id("workspace"), name=name, description=description, created_at=at, updated_at=at
            )
        )


STEPS: tuple[Callable[[Connection], None], ...] = (first_tables,)


def migrate(connection: Connection) -> None:
    """Run the steps this database has not seen, in the connection's transaction.

    ServerStartError when the database was written by a newer version.
    """
    connection.execute(text("create table if not exists schema_version (version integer not null)"))
    version = connection.execute(text("select version from schema_version")).scalar()
    if version is None:
        connection.execute(text("insert into schema_version (version) values (0)"))
        version = 0
    if version > len(STEPS):
        raise ServerStartError(
            f"the database has schema version {version}, this build knows {len(STEPS)}: run the newer Tunesmith again"
        )
    for step in STEPS[version:]:
        step(connection)
    connection.execute(text("update schema_version set version = :version"), {"version": len(STEPS)})
