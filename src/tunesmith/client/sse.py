"""Server-sent events: frames as the platform sends them of a job, and `data:` alone as OpenAI-shaped servers do."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tunesmith.api.base import JsonObject
from tunesmith.client.errors import APIError, APIResponseError, readable

DONE = "[DONE]"


class Frame(NamedTuple):
    """One event as it came over the wire."""

    event: str
    """Its kind; "" where the server has but one."""
    id: str
    data: str


class Frames:
    """Takes bytes in any portions, gives whole frames. Lines end at newlines only: U+2028 is a letter here."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}
        self._data: list[str] = []

    def feed(self, portion: bytes) -> list[Frame]:
        """The frames that `portion` completes."""
        *lines, self._rest = (self._rest + portion).split(b"\n")
        frames = [self._line(line.decode(errors="replace").removesuffix("\r")) for line in lines]
        return [frame for frame in frames if frame]

    def _line(self, line: str) -> Frame | None:
        if line:
            field, _, value = line.partition(":")
            if field == "data":
                self._data.append(value.removeprefix(" "))
            elif field in ("event", "id"):
                self._fields[field] = value.removeprefix(" ")
            return None
        fields, data, self._fields, self._data = self._fields, self._data, {}, []
        return Frame(fields.get("event", ""), fields.get("id", ""), "\n".join(data)) if data else None


class Events:
    """Takes bytes in any portions, gives whole JSON objects until `[DONE]`."""

    def __init__(self) -> None:
        self.done = False
        """Whether the server has said that nothing follows."""
        self._frames = Frames()

    def feed(self, portion: bytes) -> list[JsonObject]:
        """The events that `portion` completes; APIError if one of them says that the answer broke off."""
        found = [frame.data for frame in self._frames.feed(portion)]
        self.done = self.done or DONE in found
        return [_parsed(data) for data in found if data != DONE]


def _parsed(text: str) -> JsonObject:
    try:
        event: Any = json.loads(text)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise APIResponseError(f"the answer's stream holds something that is no JSON object: {text[:200]}")
    if error := event.get("error"):
        said = error.get("message") if isinstance(error, dict) else error
        raise APIError(f"the answer broke off: {readable(said) or 'no reason given'}")
    return event
