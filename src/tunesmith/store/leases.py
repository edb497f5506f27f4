"""Which device is taken by whom: one row per taken device, so a device cannot be taken twice."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, select

from tunesmith.store.ids import now
from tunesmith.store.tables import jobs, leases


class Leases:
    """Devices held by jobs."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def free(self, devices: Sequence[str]) -> list[str]:
        """Those of `devices` that nobody holds, in order."""
        taken = set(self.connection.execute(select(leases.c.device)).scalars())
        return [device for device in devices if device not in taken]

    def by_workspace(self) -> dict[str, int]:
        """How many devices the jobs of each workspace hold."""
        holders = select(jobs.c.workspace, func.count()).join(leases, leases.c.holder_id == jobs.c.id)
        return {row[0]: row[1] for row in self.connection.execute(holders.group_by(jobs.c.workspace))}

    def of(self, holder_id: str) -> tuple[str, ...]:
        """The devices that a holder has, in order."""
        query = select(leases.c.device).where(leases.c.holder_id == holder_id).order_by(leases.c.device)
        return tuple(self.connection.execute(query).scalars())

    def take(self, device: str, holder_kind: str, holder_id: str) -> None:
        """Hold a free device."""
        row = {"device": device, "holder_kind": holder_kind, "holder_id": holder_id, "taken_at": now()}
        self.connection.execute(insert(leases).values(row))

    def release(self, holder_kind: str, holder_id: str) -> None:
        """Give back whatever this holder has."""
        self.connection.execute(
            delete(leases).where(leases.c.holder_kind == holder_kind, leases.c.holder_id == holder_id)
        )
