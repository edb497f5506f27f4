"""Signals are a doorbell: the loop looks up at the next step boundary; what is wanted stands in `wish.json`."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn


class ToldToEnd(Exception):
    """SIGTERM came without a wish; what was done is saved."""


class Doorbell:
    """Remembers that the process was told to end. SIGUSR1 asks for nothing, it only must not kill."""

    def __init__(self) -> None:
        self.told_to_end = False

    def listen(self) -> None:
        """Take over SIGTERM and SIGUSR1; main thread only."""
        signal.signal(signal.SIGTERM, self._ring)
        signal.signal(signal.SIGUSR1, self._ring)

    def _ring(self, number: int, _frame: FrameType | None) -> None:
        self.told_to_end |= number == signal.SIGTERM


def end_by_sigterm() -> NoReturn:
    """End as if nobody had listened, so that whoever looks sees a run that was killed, not one that failed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)
    raise AssertionError("SIGTERM ends a process that does not listen")
