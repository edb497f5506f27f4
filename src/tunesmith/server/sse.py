"""A job's events as a stream of text: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi.responses import StreamingResponse

from tunesmith.api.base import Resource
from tunesmith.api.live import JobEvent, NewLines, NewPoints

HEARTBEAT = ": nothing new\n\n"
KIND = "text/event-stream"
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events, until the job has ended.", "content": {KIND: {"schema": {"type": "string"}}}}
}
"""What the route answers, for OpenAPI."""


class Answer(StreamingResponse):
    """A stream that no cache keeps and no proxy holds back."""

    media_type = KIND

    def __init__(self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        kept = {"cache-control": "no-cache", "x-accel-buffering": "no", **(headers or {})}
        super().__init__(content, status_code, kept)


async def lines(events: AsyncIterator[JobEvent | None]) -> AsyncIterator[str]:
    """Each event's lines; a comment where there is none."""
    async for event in events:
        yield HEARTBEAT if event is None else _text(event)


def _text(event: JobEvent) -> str:
    data: Resource | None = event.state
    if data is None:
        data = NewPoints(points=event.points) if event.event == "metrics" else NewLines(lines=event.lines)
    return f"event: {event.event}\nid: {event.cursor}\ndata: {data.model_dump_json()}\n\n"
