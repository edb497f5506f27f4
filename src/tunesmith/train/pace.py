"""How often a run is saved: little work may be lost, and saving may cost little of the time."""

from __future__ import annotations

import os
import time

VARIABLE = "TUNESMITH_CHECKPOINT_SECONDS"
LOST_SECONDS = 60.0
"""Work that a death may cost, unless the environment says otherwise; 0 = save after each step, whatever it costs."""
SHARE = 0.02
"""Of the time that saving may take; where one costs more than 1.2 s, it waits longer than a minute. Adapters of rank 16
on all modules of a 135M Llama: 59 MB, 0.5 s on two busy cores, 0.8% at one a minute (`python -m bench.checkpoint`)."""


class Pace:
    """Measures steps and checkpoints as they go by."""

    def __init__(self) -> None:
        self._limit = float(os.environ.get(VARIABLE, LOST_SECONDS))
        self._saved = self._looked = time.monotonic()
        self._cost = self._step = 0.0

    def due(self) -> bool:
        """Should the step that was just done be saved? To be asked after each one."""
        now = time.monotonic()
        self._step, self._looked = now - self._looked, now
        return due(now - self._saved, self._step, self._cost, self._limit)

    def saved(self, seconds: float) -> None:
        """A checkpoint was written just now and took this long."""
        self._saved = self._looked = time.monotonic()
        self._cost = seconds

    def at_stake(self) -> float:
        """Seconds of work that a death may cost between two checkpoints of this run."""
        return self._step if self._limit == 0 else max(self._limit, self._cost / SHARE + self._step)


def due(since: float, step: float, cost: float, limit: float) -> bool:
    """Would another `step` put more than `limit` at stake, counted `since` the last checkpoint, and is its `cost` fair?

    All in seconds.
    """
    return limit == 0 or (since + step > limit and cost <= SHARE * since)
