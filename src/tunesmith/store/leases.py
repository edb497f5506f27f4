"""Which device is taken by whom: one row per taken device, so a device cannot be taken twice."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from tunesmith.store.ids import now
from tunesmith.store.tables import leases


class Leases:
    """Devices held by jobs."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def free(self, devices: Sequence[str]) -> list[str]:
        """Those of `devices` that nobody holds, in order."""
        taken = set(self.connection.execute(select(leases.c.device)).scalars())
        return [device for device in devices if device not in taken]

    def take(self, device: str, holder_kind: str, holder_id: str) -> None:
        """Hold a free device."""
        row = {"device": device, "holder_kind": holder_kind, "holder_id": holder_id, "taken_at": now()}
        self.connection.execute(insert(leases).values(row))

    def release(self, holder_kind: str, holder_id: str) -> None:
        """Give back whatever this holder has."""
        self.connection.execute(
            delete(leases).where(leases.c.holder_kind == holder_kind, leases.c.holder_id == holder_id)
        )
