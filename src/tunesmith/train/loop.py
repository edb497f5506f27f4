"""The loop: steps, validations, checkpoints and wishes, for any method.

A method brings a model and a loss, which is the sum over a pass's trained tokens. Sums and counts are what the loop
speaks, so a step's gradient does not depend on how its rows were cut into passes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from tunesmith.data.schedule import epoch_of, rows_of_step
from tunesmith.data.store import Rows
from tunesmith.errors import EngineError
from tunesmith.handoff.crash import crash_at
from tunesmith.handoff.events import CheckpointSaved, Event, Progress, Stopped, Validated, Warned
from tunesmith.handoff.plan import Plan
from tunesmith.handoff.prepared import Prepared
from tunesmith.handoff.wish import read_wish
from tunesmith.model.lora import LoraLinear, Noise, set_weights, weights_of
from tunesmith.train.batches import Pass, passes
from tunesmith.train.checkpoint import Checkpoints, Damaged, State, step_directory
from tunesmith.train.crew import Crew
from tunesmith.train.optim import Optimizer
from tunesmith.train.pace import Pace
from tunesmith.train.signals import Doorbell, ToldToEnd

Log = Callable[[Event], None]
Loss = Callable[[Pass], Tensor]
"""The sum over a pass's trained tokens, a scalar that can be differentiated."""


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
class Student:
    """What is trained: adapters in a frozen model, with the key their dropout is drawn from."""

    model: nn.Module
    adapters: Mapping[str, LoraLinear]
    module_names: list[str]
    """Of the model before it was adapted."""
    noise: Noise


def fit(job: Job, student: Student, loss: Loss, checkpoints: Checkpoints, start: State) -> State | None:
    """Train from `start` through all steps; returns where that ended, or None if a wish stopped it.

    A turn is a step or a validation; between two turns wishes are heard. EngineError if the loss stops being a number
    or a checkpoint cannot be written; ToldToEnd after a checkpoint if the process is told to end without a wish.
    """
    training = Rows(job.run, job.prepared.training)
    optimizer = Optimizer(
        (weight for adapter in student.adapters.values() for weight in (adapter.A_rI, adapter.B_Or)),
        job.plan.optimizer,
        job.prepared.steps,
    )
    state, pace = start, Pace()
    if start.step:
        weights, adam = checkpoints.read(start.step)
        set_weights(student.adapters, weights)
        optimizer.restore(adam)
    began = time.monotonic() - start.seconds
    while True:
        if wanted := told(job):
            if wanted != "cancel" and state.step:
                _save(job, student, optimizer, checkpoints, state)
            if wanted == "end":
                raise ToldToEnd
            job.log(Stopped(step=state.step, wish=wanted))
            return None
        if _over(job.prepared, state):
            return state
        if _must_validate(job.prepared, state):
            state = _validate(job, student, loss, state)
        else:
            progress = _learn(job, student, loss, optimizer, training, state.step + 1)
            tokens, seconds = state.tokens + progress.tokens, time.monotonic() - began
            state = state.model_copy(update={"step": progress.step, "tokens": tokens, "seconds": seconds})
            job.log(progress.model_copy(update={"tokens": tokens, "seconds": seconds}))
            crash_at("step-done")
        if checkpoints.holds(state.step):
            checkpoints.note(state)
        elif pace.due() or state.best_step == state.step or _over(job.prepared, state):
            before = time.monotonic()
            _save(job, student, optimizer, checkpoints, state)
            pace.saved(time.monotonic() - before)


def put_best(job: Job, student: Student, checkpoints: Checkpoints, end: State) -> int:
    """Give the student the weights with the lowest validation loss; returns their step.

    The last step's stay where none was measured, or where the best ones cannot be read any more, which is told.
    """
    if end.best_step in (0, end.step):
        return end.step
    try:
        weights, _ = checkpoints.read(end.best_step)
    except Damaged as why:
        job.log(Warned(message=f"{why}. The validation loss was lowest there; the last step is exported instead"))
        return end.step
    set_weights(student.adapters, weights)
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


def _learn(job: Job, student: Student, loss: Loss, optimizer: Optimizer, rows: Rows, step: int) -> Progress:
    """One optimizer step; the event's tokens are this step's, its seconds are still 0."""
    schedule, noise = job.plan.schedule, student.noise
    chosen = rows_of_step(step, len(rows), schedule.rows_per_step, schedule.seed)
    epoch = epoch_of(step, job.prepared.steps_per_epoch)
    for adapter in student.adapters.values():
        adapter.train()

    def learn(part: Pass) -> tuple[float, tuple[Tensor, ...]]:
        noise.step, noise.rows, noise.lengths = step, part.rows, part.lengths
        part_loss = loss(part)
        return float(part_loss.detach()), optimizer.gradient(part_loss)

    loss_sum, trained, tokens = 0.0, 0, 0
    for parts in passes(rows, chosen.tolist(), schedule.tokens_per_pass, job.device, job.crew.size):
        for part, (part_loss, gradient) in zip(parts, job.crew.share(learn, parts), strict=True):
            optimizer.add(gradient)
            loss_sum += part_loss
            trained += len(part.targets_N)
            tokens += sum(part.lengths)
        crash_at("pass-done")
    rate, norm = optimizer.step(step, trained)
    if not (math.isfinite(loss_sum) and math.isfinite(norm)):
        raise EngineError(
            f"step {step}: the loss is {loss_sum / trained:g} and the gradient's norm {norm:g}; nothing was saved from "
            f"this step. A lower learning rate than {job.plan.optimizer.learning_rate:g} or a warm-up usually helps"
        )
    return Progress(
        step=step,
        epoch=epoch,
        loss=loss_sum / trained,
        learning_rate=rate,
        grad_norm=norm,
        tokens=tokens,
        seconds=0.0,
    )


def _validate(job: Job, student: Student, loss: Loss, state: State) -> State:
    """Measure the validation loss and remember the best; draws nothing, so training goes on as without it.

    Somebody who wants something is not kept waiting: the state is returned as it was, and the next attempt validates.
    """
    rows = Rows(job.run, job.prepared.validation)
    for adapter in student.adapters.values():
        adapter.eval()

    def look(part: Pass) -> float:
        with torch.no_grad():
            return float(loss(part))

    loss_sum, trained = 0.0, 0
    for parts in passes(rows, range(len(rows)), job.plan.schedule.tokens_per_pass, job.device, job.crew.size):
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


def _save(job: Job, student: Student, optimizer: Optimizer, checkpoints: Checkpoints, state: State) -> None:
    """Put the state on disk, unless it is there, and say so."""
    if not checkpoints.holds(state.step):
        weights = weights_of(student.adapters, job.plan.adapter, job.plan.model.name)
        checkpoints.save(state, weights, optimizer.state(), student.module_names)
    path = step_directory(job.run, state.step).relative_to(job.run)
    epoch = epoch_of(state.step, job.prepared.steps_per_epoch)
    job.log(CheckpointSaved(step=state.step, epoch=epoch, path=str(path)))
