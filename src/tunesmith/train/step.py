"""One optimizer step: through its passes forward and backward, then the update.

Sums and counts are what it speaks, so its gradient does not depend on how its rows were cut into passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from tunesmith.data.store import Rows
from tunesmith.errors import EngineError
from tunesmith.handoff.crash import crash_at
from tunesmith.train.batches import Pass
from tunesmith.train.checkpoint import State
from tunesmith.train.job import Job, Method
from tunesmith.train.optim import next_scale

Differentiated = tuple[Tensor, tuple[Tensor, ...]]
"""The loss of a pass, and its gradient where the optimizer has not taken it yet. Nobody looks at them before the step's
last pass is on its way: a GPU would have nothing to do meanwhile."""

ROWS_NAMED = 5
"""Rows that an error names."""


@dataclass(slots=True)
class Tally:
    """What was done since the last `progress` event, but for what a checkpoint keeps."""

    tokens: int = 0
    passed: int = 0
    """Tokens that went through the model, padding included."""
    flops: float = 0.0
    seconds: float = 0.0

    def clear(self) -> None:
        """Begin anew."""
        self.tokens = self.passed = 0
        self.flops = self.seconds = 0.0


def learn(
    job: Job, method: Method, state: State, rows: Rows, chosen: Sequence[int], tally: Tally
) -> tuple[State, float, float]:
    """One optimizer step; where that leads, its learning rate and its gradient's norm before clipping."""
    step, optimizer = state.step + 1, method.optimizer
    trained = sum(int(rows.mask(row)[1:].sum()) for row in chosen)
    if not trained:
        raise EngineError(f"step {step}: none of its rows has a token to learn from: {_named(rows, chosen)}")
    factor, divisor = (state.loss_scale / trained, state.loss_scale) if method.scaled else (1.0, float(trained))
    method.student.learn(True)
    work = partial(differentiate, method, step, factor)
    losses: list[tuple[Pass, Tensor]] = []
    tokens = 0
    for parts in method.layout.passes(rows, chosen):
        for part, (loss, gradient) in zip(parts, job.crew.share(work, parts), strict=True):
            if gradient:
                optimizer.add(gradient)
            losses.append((part, loss))
            tokens += sum(part.lengths)
            tally.passed += part.ids_BT.numel()
            tally.flops += method.gauge.flops(part)
        job.busy(step, "step")
        crash_at("pass-done")
    loss_sum = _sum_of(job, rows, step, losses)
    done = optimizer.step(step, divisor)
    if not done.applied and not (method.scaled and state.loss_scale > 1):
        raise _no_number(job, rows, step, done.grad_norm, chosen)
    tally.tokens += tokens
    found: dict[str, object] = {
        "step": step,
        "tokens": state.tokens + tokens,
        "unsaid": (state.unsaid[0] + loss_sum, state.unsaid[1] + trained),
    }
    if method.scaled:
        found["loss_scale"], found["good_steps"] = next_scale(state.loss_scale, state.good_steps, done.applied)
    return state.model_copy(update=found), done.learning_rate, done.grad_norm


def _sum_of(job: Job, rows: Rows, step: int, losses: Sequence[tuple[Pass, Tensor]]) -> float:
    """Of all passes of a step. EngineError that names the rows of the first one whose loss is not a number."""
    total = 0.0
    for part, loss in losses:
        value = float(loss)
        if not math.isfinite(value):
            raise _no_number(job, rows, step, value, part.rows)
        total += value
    return total


def differentiate(method: Method, step: int, factor: float, part: Pass) -> Differentiated:
    """Forward and backward through a pass."""
    method.student.noise.key = step, part.rows, part.lengths, part.flat
    loss = method.loss(part)
    if method.student.in_place:
        method.optimizer.add_gradient_of(loss * factor)
        return loss.detach(), ()
    return loss.detach(), method.optimizer.gradient(loss * factor)


def _no_number(job: Job, rows: Rows, step: int, value: float, at_fault: Sequence[int]) -> EngineError:
    """The first step's loss depends on no learning rate yet."""
    way_out = (
        f"A lower learning rate than {job.plan.optimizer.learning_rate:g} or a warm-up usually helps"
        if step > 1
        else "Nothing was learnt before it, so numbers are too large from the start: take bf16 or fp32 where precision "
        "is fp16, and less embedding noise (neftune_noise_alpha)"
    )
    return EngineError(
        f"step {step}: the loss or its gradient is {value:g}, and nothing was saved from this step. It was learning "
        f"from {_named(rows, at_fault)}. {way_out}; if these rows are unlike the others, look at them"
    )


def _named(rows: Rows, chosen: Sequence[int]) -> str:
    """Where rows stand in the user's files."""
    named = ", ".join(rows.place(row) for row in chosen[:ROWS_NAMED])
    return named + (f" and {len(chosen) - ROWS_NAMED} more" if len(chosen) > ROWS_NAMED else "")
