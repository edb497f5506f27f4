"""Named places where a test makes a process die. Nothing happens unless `TUNESMITH_CRASH_AT` is set: only tests do.

Imports nothing but the standard library, so any process of ours may use it.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "TUNESMITH_CRASH_AT"
"""A place (`checkpoint-half-written`), or a place and which time it counts (`step-done:3`)."""

_passed: Counter[str] = Counter()


def crash_at(name: str) -> None:
    """Die here, by SIGKILL and without a word, if the environment names this place. An engine dies in a job's first
    attempt only: what comes after it is what a test wants to see."""
    place, _, time = os.environ.get(VARIABLE, "").partition(":")
    if place == name and os.environ.get("TUNESMITH_ATTEMPT", "1") == "1":
        _passed[name] += 1
        if _passed[name] == int(time or 1):
            os.kill(os.getpid(), signal.SIGKILL)
