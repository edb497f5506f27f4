"""Which request caused this: one id from the door to the log's lines, the job, its run and its events."""

from __future__ import annotations

import itertools
import re
import secrets
from contextvars import ContextVar

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered; "" outside of one."""

HEADER = "X-Request-ID"
VARIABLE = "TUNESMITH_REQUEST_ID"
"""Under this name the launcher tells an engine which request its work began with."""

# Drawn once: asking the system for random bytes lets go of the interpreter, and getting it back took half of a
# millisecond of each request while the database's thread was writing.
_PROCESS = secrets.token_hex(6)
_COUNT = itertools.count(1)
_LAWFUL = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def take(given: bytes | None) -> str:
    """The caller's id when it is lawful (1 to 128 characters that need no quoting anywhere), else a new one."""
    if given is not None and _LAWFUL.fullmatch(given):
        return given.decode("ascii")
    return f"{_PROCESS}{next(_COUNT):08x}"
