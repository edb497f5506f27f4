"""When a call is worth repeating, and after how long. Pure; the transport waits."""

from __future__ import annotations

import random
from uuid import uuid4

import httpx

KEY_HEADER = "Idempotency-Key"
FIRST_SECONDS = 0.5
LONGEST_SECONDS = 8.0
LONGEST_ASKED_SECONDS = 60.0
"""A server that asks for more than this is not waited for as long as it asks."""

_REPEATABLE_METHODS = frozenset({"GET", "HEAD", "PUT", "PATCH", "DELETE"})
_REPEATABLE_STATUSES = frozenset({408, 429})


def repeatable(method: str) -> bool:
    """Whether a second request of this method does no more than the first; a POST might create twice."""
    return method in _REPEATABLE_METHODS


def new_key() -> str:
    """An idempotency key that nobody has used."""
    return uuid4().hex


def after_answer(response: httpx.Response, idempotent: bool) -> bool:
    """Whether to ask again after this answer: as `x-should-retry` says, else for passing trouble of safe calls."""
    word = str(response.headers.get("x-should-retry", "")).lower()
    if word in ("true", "false"):
        return word == "true"
    return idempotent and (response.status_code in _REPEATABLE_STATUSES or response.status_code >= 500)


def after_failure(error: httpx.TransportError, idempotent: bool) -> bool:
    """Whether to ask again when there was no answer: always if nothing was sent, else for safe calls."""
    never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    hopeless = isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError)
    return never_sent or (idempotent and not hopeless)


def pause(attempt: int, response: httpx.Response | None = None) -> float:
    """Seconds before the attempt after number `attempt` (from 0): as the server asks, else 0.5, 1, 2 ... less a
    random quarter, so that clients who failed together do not come back together."""
    asked = _asked(response) if response is not None else None
    if asked is not None and 0 <= asked <= LONGEST_ASKED_SECONDS:
        return asked
    return min(FIRST_SECONDS * 2.0**attempt, LONGEST_SECONDS) * (1 - 0.25 * random.random())  # noqa: S311


def _asked(response: httpx.Response) -> float | None:
    for header, seconds in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return float(response.headers[header]) * seconds
        except (KeyError, ValueError):
            continue
    return None
