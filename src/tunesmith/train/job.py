"""What a run is given, and what its method brings: a student, and a loss as the sum over a pass's trained tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tunesmith.handoff.events import Busy, Event, Sampled
from tunesmith.handoff.plan import Plan
from tunesmith.handoff.prepared import Prepared
from tunesmith.handoff.wish import read_wish
from tunesmith.train.batches import Layout, Pass
from tunesmith.train.crew import Crew
from tunesmith.train.gauge import Gauge
from tunesmith.train.optim import Optimizer
from tunesmith.train.signals import Doorbell
from tunesmith.train.student import Student

SIGN_SECONDS = 300.0
"""Between two signs of life; a trainer that is silent for an hour is taken for hung."""

Log = Callable[[Event], None]
Loss = Callable[[Pass], Tensor]
"""The sum over a pass's trained tokens, a scalar that can be differentiated."""


class Signs:
    """Signs of life, at most one in SIGN_SECONDS."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for one, which then counts as given."""
        now = time.monotonic()
        due = now - self._last >= SIGN_SECONDS
        self._last = now if due else self._last
        return due


@dataclass(frozen=True, slots=True)
class Job:
    """A run: its directory, what was decided and counted, and how it is spoken with."""

    run: Path
    plan: Plan
    prepared: Prepared
    device: torch.device
    log: Log
    doorbell: Doorbell
    crew: Crew
    signs: Signs = field(default_factory=Signs)

    def told(self) -> Literal["cancel", "pause", "end"] | None:
        """What somebody wants of this run; "end" is a SIGTERM that no wish explains."""
        if wish := read_wish(self.run):
            return wish.wish
        return "end" if self.doorbell.told_to_end else None

    def busy(self, step: int, doing: Literal["step", "validation"]) -> None:
        """Say now and then that a long step or validation goes on; to be called after each pass."""
        if self.signs.due():
            self.log(Busy(step=step, doing=doing))


@dataclass(frozen=True, slots=True)
class Method:
    """What a recipe brings."""

    student: Student
    loss: Loss
    optimizer: Optimizer
    gauge: Gauge
    layout: Layout
    ask: Callable[[int], Sampled] | None
    """What the model says after a step, to be shown beside its validation loss; None = there is nothing to ask."""
    scaled: bool
    """Whether losses are scaled up before they are differentiated, as fp16 needs."""
