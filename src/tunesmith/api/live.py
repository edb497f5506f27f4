"""One job's stream of events on the wire: `event:` says which kind, `id:` is a cursor, `data:` a JSON object."""

from __future__ import annotations

from typing import Literal

from tunesmith.api.base import Request, Resource
from tunesmith.api.jobs import JobState, LogLine

Kind = Literal["status", "metrics", "log"]
KINDS: tuple[Kind, ...] = ("status", "metrics", "log")


class EventsRequest(Request, use_attribute_docstrings=True):  # FastAPI reads a query's from the fields themselves
    """Which part of a stream."""

    cursor: str | None = None
    """`id` of the last event that arrived; null = from the beginning. The header Last-Event-ID comes before it."""
    kinds: list[Kind] = list(KINDS)
    """What is wanted beside the end."""


class MetricPoint(Resource):
    """One number of a series, such as `train_loss`."""

    series: str
    step: int
    epoch: int
    value: float | None
    """Null where it was not a finite number."""


class NewPoints(Resource):
    """`data` of `metrics`."""

    points: list[MetricPoint]


class NewLines(Resource):
    """`data` of `log`."""

    lines: list[LogLine]


class JobEvent(Resource):
    """Something that happened to a job. Each kind has its own part; the others are empty."""

    event: Literal["status", "metrics", "log", "end"]
    cursor: str
    """Where to go on from."""
    state: JobState | None = None
    """With `status` and `end`: how the job is doing, without its series."""
    points: list[MetricPoint] = []
    """With `metrics`: what is new in its series."""
    lines: list[LogLine] = []
    """With `log`: what is new in its log."""
