"""The loop: steps, validations, checkpoints and wishes, for any method.

A method brings a student and a loss, which is the sum over a pass's trained tokens. Sums and counts are what the loop
speaks, so a step's gradient does not depend on how its rows were cut into passes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tunesmith.data.order import Order
from tunesmith.data.schedule import epoch_of, steps_of
from tunesmith.data.store import Rows
from tunesmith.errors import EngineError
from tunesmith.handoff.crash import crash_at
from tunesmith.handoff.events import CheckpointSaved, Event, Progress, Sampled, Stopped, Validated, Warned
from tunesmith.handoff.plan import Plan
from tunesmith.handoff.prepared import Prepared
from tunesmith.handoff.wish import read_wish
from tunesmith.train.batches import Pass, passes
from tunesmith.train.checkpoint import Checkpoints, Damaged, State, step_directory
from tunesmith.train.crew import Crew
from tunesmith.train.gauge import Gauge
from tunesmith.train.optim import Optimizer, next_scale
from tunesmith.train.pace import Pace
from tunesmith.train.rehearsal import rehearse
from tunesmith.train.signals import Doorbell, ToldToEnd
from tunesmith.train.student import Student

Log = Callable[[Event], None]
Loss = Callable[[Pass], Tensor]
"""The sum over a pass's trained tokens, a scalar that can be differentiated."""

_Differentiated = tuple[float, tuple[Tensor, ...]]
"""The loss of a pass, and its gradient where the optimizer has not taken it yet."""

ROWS_NAMED = 5
"""Rows that an error names."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a run is given: its directory, what was decided and counted, and how it is spoken with."""

    run: Path
    plan: Plan
    prepared: Prepared
    device: torch.device
    log: Log
    doorbell: Doorbell
    crew: Crew


@dataclass(frozen=True, slots=True)
class Method:
    """What a recipe brings."""

    student: Student
    loss: Loss
    optimizer: Optimizer
    gauge: Gauge
    ask: Callable[[int], Sampled] | None
    """What the model says after a step, to be shown beside its validation loss; None = there is nothing to ask."""
    flat: bool
    """Whether a pass holds its rows one after another instead of padding each."""
    longest_shared: int | None
    """Tokens of the longest row that may share a pass; None = any may."""
    scaled: bool
    """Whether losses are scaled up before they are differentiated, as fp16 needs."""


@dataclass(slots=True)
class _Tally:
    """What was done since the last `progress` event, but for what a checkpoint keeps."""

    tokens: int = 0
    passed: int = 0
    """Tokens that went through the model, padding included."""
    flops: float = 0.0
    seconds: float = 0.0


def fit(job: Job, method: Method, checkpoints: Checkpoints, start: State) -> State | None:
    """Train from `start` through all steps; returns where that ended, or None if a wish stopped it.

    A turn is a step or a validation; between two turns wishes are heard. EngineError if the loss stops being a number
    or a checkpoint cannot be written; ToldToEnd after a checkpoint if the process is told to end without a wish.
    """
    training, order = Rows(job.run, job.prepared.training, job.prepared.files), Order(job.run, job.prepared, job.plan)
    state, pace, tally = start, Pace(), _Tally()
    asked_for = _asked_for(job)
    if start.step:
        method.optimizer.set_weights(checkpoints.weights(start.step))
        method.optimizer.restore(checkpoints.optimizer(start.step))
    _rehearse(job, method, training)
    began = time.monotonic() - start.seconds
    while True:
        if wanted := told(job):
            if wanted != "cancel" and state.step:
                _save(job, method, checkpoints, state, pace)
            if wanted == "end":
                raise ToldToEnd
            job.log(Stopped(step=state.step, wish=wanted))
            return None
        if _over(job.prepared, state):
            return state
        if looks := _must_validate(job.prepared, state):
            state = _validate(job, method, state)
        else:
            before = time.monotonic()
            state, rate, norm = _learn(job, method, state, training, order.rows_of_step(state.step + 1).tolist(), tally)
            tally.seconds += time.monotonic() - before
            state = _say(job, method, state.model_copy(update={"seconds": time.monotonic() - began}), rate, norm, tally)
            crash_at("step-done")
        if checkpoints.holds(state.step):
            checkpoints.note(state)
        elif pace.due() or _must_save(job, state) or state.step in asked_for:
            _save(job, method, checkpoints, state, pace)
        if looks and method.ask is not None and not told(job):  # last, since it may take seconds and nothing needs it
            job.log(method.ask(state.step))


def put_chosen(job: Job, method: Method, checkpoints: Checkpoints, end: State) -> int:
    """Give the student, which learns no more, the weights that the plan wants exported; returns their step.

    The last step's stay where no validation loss was measured, or where the best ones cannot be read any more, which is
    told.
    """
    method.student.learn(False)
    if job.plan.result.step == "last" or end.best_step in (0, end.step):
        return end.step
    try:
        weights = checkpoints.weights(end.best_step)
    except Damaged as why:
        job.log(Warned(message=f"{why}. The validation loss was lowest there; the last step is exported instead"))
        return end.step
    method.optimizer.set_weights(weights)
    return end.best_step


def told(job: Job) -> Literal["cancel", "pause", "end"] | None:
    """What somebody wants of this run; "end" is a SIGTERM that no wish explains."""
    if wish := read_wish(job.run):
        return wish.wish
    return "end" if job.doorbell.told_to_end else None


def _must_validate(prepared: Prepared, state: State) -> bool:
    return state.step in prepared.validate_at and state.validated_step < state.step


def _over(prepared: Prepared, state: State) -> bool:
    return state.step == prepared.steps and not _must_validate(prepared, state)


def _must_save(job: Job, state: State) -> bool:
    """Is it the end, or what would be exported if nothing better came?"""
    best = job.plan.result.step == "best" and state.best_step == state.step
    return best or _over(job.prepared, state)


def _asked_for(job: Job) -> frozenset[int]:
    """The steps whose checkpoints the user asked for."""
    cadence, prepared = job.plan.schedule.save_at, job.prepared
    return frozenset(steps_of(cadence, prepared.steps_per_epoch, prepared.steps))


def _passes(job: Job, method: Method, rows: Rows, chosen: Sequence[int]) -> Iterator[list[Pass]]:
    """Rows as the threads of this job take them."""
    budget, flat, longest_shared = job.plan.schedule.tokens_per_pass, method.flat, method.longest_shared
    return passes(rows, chosen, budget, job.device, _hands(job, method), flat=flat, longest_shared=longest_shared)


def _hands(job: Job, method: Method) -> int:
    return 1 if method.student.in_place else job.crew.size


def _differentiate(job: Job, method: Method, rows: Rows, step: int, factor: float, part: Pass) -> _Differentiated:
    """Forward and backward through a pass. EngineError that names its rows if the loss is not a number."""
    method.student.noise.key = step, part.rows, part.lengths, method.flat
    loss = method.loss(part)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise _no_number(job, rows, step, value, part.rows)
    if method.student.in_place:
        method.optimizer.add_gradient_of(loss * factor)
        return value, ()
    return value, method.optimizer.gradient(loss * factor)


def _rehearse(job: Job, method: Method, rows: Rows) -> None:
    """EngineError now, if there is not memory enough for the longest pass."""
    method.student.learn(True)
    learn = partial(_differentiate, job, method, rows, 0, 1.0)
    trained = method.student.parameters().values()
    rehearse(
        learn,
        trained,
        rows,
        job.plan,
        job.device,
        job.crew,
        hands=_hands(job, method),
        flat=method.flat,
        longest_shared=method.longest_shared,
    )
    method.optimizer.forget()


def _learn(
    job: Job, method: Method, state: State, rows: Rows, chosen: Sequence[int], tally: _Tally
) -> tuple[State, float, float]:
    """One optimizer step; where that leads, its learning rate and its gradient's norm before clipping."""
    step, optimizer = state.step + 1, method.optimizer
    trained = sum(int(rows.mask(row)[1:].sum()) for row in chosen)
    if not trained:
        raise EngineError(f"step {step}: none of its rows has a token to learn from: {_named(rows, chosen)}")
    factor, divisor = (state.loss_scale / trained, state.loss_scale) if method.scaled else (1.0, float(trained))
    method.student.learn(True)
    learn = partial(_differentiate, job, method, rows, step, factor)
    loss_sum, tokens = 0.0, 0
    for parts in _passes(job, method, rows, chosen):
        for part, (value, gradient) in zip(parts, job.crew.share(learn, parts), strict=True):
            if gradient:
                optimizer.add(gradient)
            loss_sum += value
            tokens += sum(part.lengths)
            tally.passed += part.ids_BT.numel()
            tally.flops += method.gauge.flops(part)
        crash_at("pass-done")
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


def _say(job: Job, method: Method, state: State, rate: float, norm: float, tally: _Tally) -> State:
    """The `progress` event, each time that so many steps are done, and after the last one."""
    if state.step % job.plan.schedule.log_every and state.step != job.prepared.steps:
        return state
    loss_sum, trained = state.unsaid
    job.log(
        Progress(
            step=state.step,
            epoch=epoch_of(state.step, job.prepared.steps_per_epoch),
            loss=loss_sum / trained,
            learning_rate=rate,
            grad_norm=norm,
            tokens=state.tokens,
            seconds=state.seconds,
            padding=1 - tally.tokens / tally.passed,
            peak_memory=method.gauge.peak_memory(),
            utilisation=method.gauge.utilisation(tally.flops, tally.seconds),
        )
    )
    tally.tokens = tally.passed = 0
    tally.flops = tally.seconds = 0.0
    return state.model_copy(update={"unsaid": (0.0, 0)})


def _validate(job: Job, method: Method, state: State) -> State:
    """Measure the validation loss and remember the best; draws nothing, so training goes on as without it.

    Somebody who wants something is not kept waiting: the state is returned as it was, and the next attempt validates.
    """
    rows = Rows(job.run, job.prepared.validation)
    method.student.learn(False)

    def look(part: Pass) -> float:
        with torch.no_grad():
            return float(method.loss(part))

    loss_sum, trained = 0.0, 0
    for parts in _passes(job, method, rows, range(len(rows))):
        loss_sum += sum(job.crew.share(look, parts))
        trained += sum(len(part.targets_N) for part in parts)
        if told(job):
            return state
    mean = loss_sum / trained
    job.log(Validated(step=state.step, epoch=epoch_of(state.step, job.prepared.steps_per_epoch), loss=mean))
    found: dict[str, float] = {"validated_step": state.step}
    if state.best_loss is None or mean < state.best_loss:
        found |= {"best_step": state.step, "best_loss": mean}
    return state.model_copy(update=found)


def _save(job: Job, method: Method, checkpoints: Checkpoints, state: State, pace: Pace) -> None:
    """Put the state on disk, unless it is there, and say so."""
    before = time.monotonic()
    if not checkpoints.holds(state.step):
        checkpoints.save(state, method.optimizer.masters(), method.optimizer.state())
        pace.saved(time.monotonic() - before)
    path = step_directory(job.run, state.step)
    job.log(
        CheckpointSaved(
            step=state.step,
            epoch=epoch_of(state.step, job.prepared.steps_per_epoch),
            path=str(path.relative_to(job.run)),
            size=sum(file.stat().st_size for file in path.iterdir()),
            at_stake=pace.at_stake(),
        )
    )


def _no_number(job: Job, rows: Rows, step: int, value: float, at_fault: Sequence[int]) -> EngineError:
    return EngineError(
        f"step {step}: the loss or its gradient is {value:g}, and nothing was saved from this step. It was learning "
        f"from {_named(rows, at_fault)}. A lower learning rate than {job.plan.optimizer.learning_rate:g} or a warm-up "
        "usually helps; if these rows are unlike the others, look at them"
    )


def _named(rows: Rows, chosen: Sequence[int]) -> str:
    """Where rows stand in the user's files."""
    named = ", ".join(rows.place(row) for row in chosen[:ROWS_NAMED])
    return named + (f" and {len(chosen) - ROWS_NAMED} more" if len(chosen) > ROWS_NAMED else "")
