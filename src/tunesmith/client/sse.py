"""Server-sent events, as far as OpenAI-shaped servers use them: `data:` lines that hold JSON, closed by `[DONE]`."""

from __future__ import annotations

import json
from typing import Any

from tunesmith.api.base import JsonObject
from tunesmith.client.errors import APIError, APIResponseError, readable

DONE = "[DONE]"


class Events:
    """Takes bytes in any portions, gives whole events. Lines end at newlines only: U+2028 is a letter here."""

    def __init__(self) -> None:
        self.done = False
        """Whether the server has said that nothing follows."""
        self._rest = b""
        self._data: list[str] = []

    def feed(self, portion: bytes) -> list[JsonObject]:
        """The events that `portion` completes; APIError if one of them says that the answer broke off."""
        *lines, self._rest = (self._rest + portion).split(b"\n")
        events = []
        for line in lines:
            event = self._line(line.decode(errors="replace").removesuffix("\r"))
            if event is not None:
                events.append(event)
        return events

    def _line(self, line: str) -> JsonObject | None:
        if line.startswith("data:"):
            self._data.append(line.removeprefix("data:").removeprefix(" "))
            return None
        if line or not self._data:
            return None
        text, self._data = "\n".join(self._data), []
        if text == DONE:
            self.done = True
            return None
        return _parsed(text)


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
