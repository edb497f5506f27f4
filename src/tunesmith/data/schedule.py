"""Step arithmetic: how many steps a run has, which rows a step holds, after which steps a validation runs.

Pure functions of plain numbers. Step s of epoch e holds rows `permutation(rows, seed, e)[s * G : (s + 1) * G]`; the
last step of an epoch may hold fewer.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from tunesmith.errors import EngineError
from tunesmith.handoff.plan import AtTheEnd, Cadence, EachEpoch, Epochs, EverySteps, Stop

MOST_STEPS = 10_000_000
"""Optimizer steps of a run: four months at one a second, and few enough to list."""

Indices = npt.NDArray[np.int64]


def steps_per_epoch(rows: int, rows_per_step: int) -> int:
    """Optimizer steps that pass over all rows once."""
    return math.ceil(rows / rows_per_step)


def total_steps(stop: Stop, per_epoch: int) -> int:
    """Optimizer steps of the whole run; EngineError (TrainingConfigError) above MOST_STEPS."""
    steps = stop.epochs * per_epoch
    if not isinstance(stop, Epochs):
        steps = min(steps, stop.steps)
    if steps > MOST_STEPS:
        raise EngineError(
            f"schedule.epochs or schedule.max_steps makes {steps:,} steps, and a run has at most {MOST_STEPS:,}; "
            "lower it",
            "TrainingConfigError",
        )
    return steps


def epoch_of(step: int, per_epoch: int) -> int:
    """The epoch (1-based) that step `step` (1-based) belongs to."""
    return (step - 1) // per_epoch + 1


def rows_of_step(step: int, rows: int, rows_per_step: int, seed: int) -> Indices:
    """Indices of the rows that step `step` (1-based) learns from, in drawn order."""
    epoch, place = divmod(step - 1, steps_per_epoch(rows, rows_per_step))
    return permutation(rows, seed, epoch)[place * rows_per_step : (place + 1) * rows_per_step]


def validation_steps(cadence: Cadence, per_epoch: int, steps: int) -> tuple[int, ...]:
    """The steps (1-based, ascending) after which a validation runs; the last step always is one."""
    return tuple(sorted({*steps_of(cadence, per_epoch, steps), steps}))


def steps_of(cadence: Cadence | None, per_epoch: int, steps: int) -> tuple[int, ...]:
    """The steps (1-based, ascending, none behind `steps`) after which something is due; None = never."""
    if cadence is None:
        return ()
    if isinstance(cadence, AtTheEnd):
        return (steps,)
    if isinstance(cadence, EachEpoch):
        interval = float(per_epoch)
    elif isinstance(cadence, EverySteps):
        interval = float(cadence.steps)
    else:
        interval = cadence.fraction * per_epoch
    interval = max(interval, 1.0)  # below it each step is due, and so it is at 1
    times = math.ceil(steps / interval)
    found = {max(1, round(time * interval)) for time in range(1, times + 1)}
    return tuple(sorted(step for step in found if step <= steps))


@functools.lru_cache(maxsize=4)
def permutation(rows: int, seed: int, epoch: int) -> Indices:
    """An order of `rows` indices, the same on every machine and with every library version.

    Rows are sorted by a hash (SplitMix64; Steele et al., 2014) of seed, epoch and index.
    """
    key = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(epoch % 2**64))
    order = np.argsort(_mix(_mix(np.arange(rows, dtype=np.uint64)) ^ key), kind="stable")
    order.setflags(write=False)
    return order


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """One SplitMix64 output for each state; arithmetic is modulo 2^64."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
