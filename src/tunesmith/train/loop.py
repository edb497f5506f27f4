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

import torch
from torch import Tensor, nn

from tunesmith.data.schedule import epoch_of, rows_of_step
from tunesmith.data.store import Rows
from tunesmith.errors import EngineError
from tunesmith.handoff.events import CheckpointSaved, Event, Progress, Stopped, Validated
from tunesmith.handoff.plan import Plan
from tunesmith.handoff.prepared import Prepared
from tunesmith.handoff.wish import read_wish
from tunesmith.model.lora import LoraLinear, Noise, weights_of
from tunesmith.train.batches import Pass, passes
from tunesmith.train.checkpoint import State, save_checkpoint
from tunesmith.train.crew import Crew
from tunesmith.train.optim import Optimizer
from tunesmith.train.signals import Doorbell

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


def fit(job: Job, student: Student, loss: Loss) -> State | None:
    """Train through all steps; returns where that ended, or None if a wish stopped it.

    EngineError if the loss stops being a number, or after a checkpoint if the process is told to end without a wish.
    """
    plan, prepared = job.plan, job.prepared
    training = Rows(job.run, prepared.training)
    optimizer = Optimizer(
        (weight for adapter in student.adapters.values() for weight in (adapter.A_rI, adapter.B_Or)),
        plan.optimizer,
        prepared.steps,
    )
    state = State(step=0, tokens=0, seconds=0.0, best_step=0, best_loss=None)
    started = time.monotonic()
    for step in range(1, prepared.steps + 1):
        progress = _learn(job, student, loss, optimizer, training, step)
        tokens, seconds = state.tokens + progress.tokens, time.monotonic() - started
        state = state.model_copy(update={"step": step, "tokens": tokens, "seconds": seconds})
        job.log(progress.model_copy(update={"tokens": tokens, "seconds": seconds}))
        if wish := read_wish(job.run):
            job.log(Stopped(step=step, wish=wish.wish))
            return None
        if job.doorbell.told_to_end:
            _save(job, student, optimizer, state)
            raise EngineError(f"stopped by SIGTERM after step {step}; its checkpoint is complete")
        if step in prepared.validate_at:
            state = _validate(job, student, loss, state)
        if step in prepared.validate_at or step % prepared.steps_per_epoch == 0 or step == prepared.steps:
            _save(job, student, optimizer, state)
    return state


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
    """Measure the validation loss and remember the best; draws nothing, so training goes on as without it."""
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
    mean = loss_sum / trained
    job.log(Validated(step=state.step, epoch=epoch_of(state.step, job.prepared.steps_per_epoch), loss=mean))
    if state.best_loss is None or mean < state.best_loss:
        return state.model_copy(update={"best_step": state.step, "best_loss": mean})
    return state


def _save(job: Job, student: Student, optimizer: Optimizer, state: State) -> None:
    weights = weights_of(student.adapters, job.plan.adapter, job.plan.model.name)
    path = save_checkpoint(job.run, state, weights, optimizer.state(), student.module_names)
    epoch = epoch_of(state.step, job.prepared.steps_per_epoch)
    job.log(CheckpointSaved(step=state.step, epoch=epoch, path=str(path.relative_to(job.run))))
