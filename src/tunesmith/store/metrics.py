"""Series of numbers that jobs tell of themselves: train_loss, val_loss, lr, grad_norm, tokens_per_second."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import Connection, RowMapping, and_, or_, select

from tunesmith.api.base import JsonObject
from tunesmith.store.rows import upsert
from tunesmith.store.tables import metrics

SHOWN_SERIES, SHOWN_POINTS = ("train_loss", "val_loss"), 500
"""What a status shows: these, with so many points at most. The rest has a route of its own."""

Point = tuple[str, int, int, float]
"""Series, step, epoch, value."""


class Metrics:
    """Points, addressed by job, series and step."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def add(self, job_id: str, points: Iterable[Point]) -> None:
        """More points; the last one of a step wins."""
        rows = [
            {"job_id": job_id, "series": series, "step": step, "epoch": epoch, "value": finite(value)}
            for series, step, epoch, value in points
        ]
        if rows:
            statement = upsert(self.connection, metrics)
            wins = {"epoch": statement.excluded.epoch, "value": statement.excluded.value}
            keys = ["job_id", "series", "step"]
            self.connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=wins), rows)

    def of(self, job_id: str, series: Collection[str] = ()) -> dict[str, list[JsonObject]]:
        """All series of a job, or those that are named, whole."""
        query = select(metrics).where(metrics.c.job_id == job_id).order_by(metrics.c.series, metrics.c.step)
        if series:
            query = query.where(metrics.c.series.in_(series))
        found: dict[str, list[JsonObject]] = {}
        for row in self.connection.execute(query).mappings():
            found.setdefault(row["series"], []).append(
                {"step": row["step"], "epoch": row["epoch"], "value": row["value"]}
            )
        return found

    def since(self, job_id: str, steps: Mapping[str, int], limit: int) -> Sequence[RowMapping]:
        """The first points past `steps` (last step by series), at most `limit`, those of a series in order."""
        past = [and_(metrics.c.series == series, metrics.c.step > step) for series, step in steps.items()]
        new = or_(metrics.c.series.not_in(list(steps)), *past)
        query = select(metrics).where(metrics.c.job_id == job_id, new)
        return self.connection.execute(query.order_by(metrics.c.step, metrics.c.series).limit(limit)).mappings().all()


def thinned(points: Sequence[JsonObject]) -> list[JsonObject]:
    """At most `SHOWN_POINTS` of them, evenly; the last one always stays."""
    if len(points) <= SHOWN_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (SHOWN_POINTS - 1))] for i in range(SHOWN_POINTS)]


def finite(value: float) -> float | None:
    """The number, or None for what JSON cannot hold (NaN, infinity)."""
    return value if math.isfinite(value) else None
