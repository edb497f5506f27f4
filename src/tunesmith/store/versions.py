"""What an adapter or a model was before a job gave it new weights: kept, so that one can go back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, func, insert, select

from tunesmith.refs import Ref
from tunesmith.store.filesets import Snapshot
from tunesmith.store.ids import new_id, now
from tunesmith.store.tables import versions

Kind = Literal["adapter", "model"]


class Versions:
    """Earlier versions, numbered from 1 for each thing."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def keep(self, kind: Kind, ref: Ref, snapshot: Snapshot, facts: Mapping[str, Any]) -> int:
        """Remember what it is now; the number under which it is kept."""
        where = (versions.c.kind == kind, versions.c.workspace == ref.workspace, versions.c.name == ref.name)
        number = self.connection.execute(select(func.max(versions.c.number)).where(*where)).scalar() or 0
        self.connection.execute(
            insert(versions).values(
                id=new_id("version"),
                workspace=ref.workspace,
                kind=kind,
                name=ref.name,
                number=number + 1,
                snapshot=snapshot.as_json(),
                facts=dict(facts),
                created_at=now(),
            )
        )
        return int(number) + 1

    def of(self, kind: Kind, ref: Ref) -> list[RowMapping]:
        """The earlier versions, newest first."""
        where = (versions.c.kind == kind, versions.c.workspace == ref.workspace, versions.c.name == ref.name)
        query = select(versions).where(*where).order_by(versions.c.number.desc())
        return list(self.connection.execute(query).mappings())

    def digests(self) -> set[str]:
        """Of every blob that an earlier version holds."""
        found: set[str] = set()
        for (snapshot,) in self.connection.execute(select(versions.c.snapshot)):
            found |= {file.digest for file in Snapshot.of_json(snapshot).files if file.digest}
        return found
