# Made by scripts/unasync.py from ../aio/watching.py: change that file and run the script again.
"""A job's events as they happen, over as many connections as it takes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence

import httpx

from tunesmith.api import paths
from tunesmith.api.live import JobEvent, Kind
from tunesmith.client.errors import APIError, APIResponseError, away
from tunesmith.client.sse import Frame, Frames
from tunesmith.client.sync.resource import Resource

AGAIN_SECONDS = 1.0
"""Between a connection that ended and the next."""
_STREAM = {"Accept": "text/event-stream"}


class Watching(Resource):
    """The part of `client.jobs` that listens."""

    def events(
        self,
        name: str,
        *,
        workspace: str | None = None,
        cursor: str | None = None,
        kinds: Sequence[Kind] | None = None,
        on_silence: Callable[[APIError], None] | None = None,
        patience: float = 0.0,
    ) -> Iterator[JobEvent]:
        """What has happened to a job since `cursor` (that of an earlier event; None = ever), and what happens from now
        on: `status`, `metrics` and `log`, or only `kinds`, and at last `end`.

        A connection that ends before is opened again where it was. A platform that cannot be reached is asked again for
        `patience` seconds, and `on_silence` told each time; then APIConnectionError or InternalServerError.
        NotFoundError when the job is deleted.
        """
        path = self._at(paths.JOB_EVENTS, name, workspace)
        heard = time.monotonic()
        while True:
            try:
                query = {"cursor": cursor, "kinds": list(kinds) if kinds else None}
                response = self._transport.send("GET", path, query=query, headers=_STREAM, stream=True)
                try:
                    frames = Frames()
                    for portion in response.iter_bytes():
                        heard = time.monotonic()
                        for event in map(_event, frames.feed(portion)):
                            cursor = event.cursor
                            yield event
                            if event.event == "end":
                                return
                finally:
                    response.close()
            except httpx.TransportError:
                pass  # it broke, which is as if it had ended
            except APIError as error:
                if not away(error) or time.monotonic() - heard >= patience:
                    raise
                if on_silence:
                    on_silence(error)
            self._transport.sleep(AGAIN_SECONDS)


def _event(frame: Frame) -> JobEvent:
    try:
        data = json.loads(frame.data)
        parts = {"state": data} if frame.event in ("status", "end") else data
        return JobEvent.model_validate({"event": frame.event, "cursor": frame.id, **parts}, extra="ignore")
    except (ValueError, TypeError):
        raise APIResponseError(
            f"the job's events hold something that this client cannot read: {frame.data[:200]}"
        ) from None
