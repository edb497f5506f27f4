"""What the platform wants of a running job: `wish.json` in the run's directory; the signal is only a doorbell."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tunesmith.handoff.base import HandedFile

WISH_FILE = "wish.json"


class Wish(HandedFile):
    """Heard at the next step boundary, also one that stood there before the process began.

    So whoever starts a run again takes the wish away first.
    """

    wish: Literal["cancel", "pause"]
    """cancel = end, nothing has to be kept; pause = leave a complete checkpoint, then end."""


def read_wish(run: Path) -> Wish | None:
    """The wish, or None while there is none."""
    path = run / WISH_FILE
    return Wish.read(path) if path.exists() else None
