"""The loop: steps, validations, checkpoints and wishes, for any method."""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor

from tunesmith.data.order import Order
from tunesmith.data.schedule import epoch_of, steps_of
from tunesmith.data.store import Rows
from tunesmith.handoff.crash import crash_at
from tunesmith.handoff.events import CheckpointSaved, Progress, Stopped, Validated, Warned
from tunesmith.handoff.prepared import Prepared
from tunesmith.train.batches import Pass
from tunesmith.train.checkpoint import Checkpoints, Damaged, State, step_directory
from tunesmith.train.job import Job, Method
from tunesmith.train.pace import Pace
from tunesmith.train.rehearsal import rehearse
from tunesmith.train.signals import ToldToEnd
from tunesmith.train.step import Tally, differentiate, learn


def fit(job: Job, method: Method, checkpoints: Checkpoints, start: State) -> State | None:
    """Train from `start` through all steps; returns where that ended, or None if a wish stopped it.

    A turn is a step or a validation; between two turns wishes are heard. EngineError if the loss stops being a number
    or a checkpoint cannot be written; ToldToEnd after a checkpoint if the process is told to end without a wish.
    """
    training, order = Rows(job.run, job.prepared.training, job.prepared.files), Order(job.run, job.prepared, job.plan)
    state, pace, tally = start, Pace(), Tally()
    asked_for = _asked_for(job)
    _rehearse(job, method, training)  # before the running means are there, which it counts by itself
    if start.step:
        method.optimizer.set_weights(checkpoints.weights(start.step))
        method.optimizer.restore(checkpoints.optimizer(start.step))
    began = time.monotonic() - start.seconds
    while True:
        if wanted := job.told():
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
            state, rate, norm = learn(job, method, state, training, order.rows_of_step(state.step + 1).tolist(), tally)
            tally.seconds += time.monotonic() - before
            state = _say(job, method, state.model_copy(update={"seconds": time.monotonic() - began}), rate, norm, tally)
            crash_at("step-done")
        if checkpoints.holds(state.step):
            checkpoints.note(state)
        elif pace.due() or _must_save(job, state) or state.step in asked_for:
            _save(job, method, checkpoints, state, pace)
        if looks and method.ask is not None and not job.told():  # last, since it may take seconds and nothing needs it
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


def _rehearse(job: Job, method: Method, rows: Rows) -> None:
    """EngineError now, if there is not memory enough for the longest pass."""
    method.student.learn(True)
    trained = method.student.parameters().values()
    rehearse(partial(differentiate, method, 0, 1.0), trained, rows, job.plan, method.layout, job.crew)
    method.optimizer.forget()


def _say(job: Job, method: Method, state: State, rate: float, norm: float, tally: Tally) -> State:
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
    tally.clear()
    return state.model_copy(update={"unsaid": (0.0, 0)})


def _validate(job: Job, method: Method, state: State) -> State:
    """Measure the validation loss and remember the best; draws nothing, so training goes on as without it.

    Somebody who wants something is not kept waiting: the state is returned as it was, and the next attempt validates.
    """
    rows = Rows(job.run, job.prepared.validation)
    method.student.learn(False)

    def look(part: Pass) -> Tensor:
        with torch.no_grad():
            return method.loss(part)

    losses: list[list[Tensor]] = []
    trained = 0
    for parts in method.layout.passes(rows, range(len(rows))):
        losses.append(job.crew.share(look, parts))
        trained += sum(len(part.targets_N) for part in parts)
        job.busy(state.step, "validation")
        if job.told():
            return state
    mean = sum(sum(map(float, shared)) for shared in losses) / trained
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
