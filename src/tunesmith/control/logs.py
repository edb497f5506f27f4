"""A job's log: what its processes printed and what their events say, in the order of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tunesmith.api.jobs import DOWNLOAD, TRAINING, LogLine, LogPage, LogRequest, Step
from tunesmith.control.launch import local
from tunesmith.errors import BadRequest
from tunesmith.handoff.events import (
    Busy,
    CheckpointSaved,
    Event,
    Failed,
    Finished,
    PreparedRows,
    Preparing,
    Progress,
    Sampled,
    Started,
    Stopped,
    Validated,
    Warned,
    events_path,
    read_events,
)
from tunesmith.refs import Ref
from tunesmith.store.database import Tx
from tunesmith.store.jobs import PLATFORM

STEP_OF_PHASE: Mapping[local.Phase, str] = {"prepare": DOWNLOAD, "train": TRAINING}


@dataclass(frozen=True, slots=True)
class Logged:
    """A job as far as its log depends on it."""

    id: str
    name: str
    platform: bool
    attempt: int
    attempt_id: str
    steps: Sequence[Step]


def logged(tx: Tx, ref: Ref) -> Logged:
    """The job; NotFound without it."""
    row = tx.jobs.row(ref.workspace, ref.name)
    steps = tx.jobs.steps.of([row["id"]]).get(row["id"], [])
    platform = row["backend"] == PLATFORM
    return Logged(row["id"], ref.name, platform, row["attempt"], row["attempt_id"], steps)


def page(run: Path, job: Logged, asked: LogRequest) -> LogPage:
    """`limit` lines from the cursor on; a cursor is the number of lines before it. Blocking."""
    start, limit = _number(asked.page_cursor), asked.limit
    lines = sorted(_lines(run, job, asked), key=lambda line: line.timestamp)
    shown = lines[start : start + limit]
    more = start + len(shown) < len(lines)
    return LogPage(
        data=shown,
        total=len(lines),
        next_page=str(start + len(shown)) if more else None,
        prev_page=str(max(0, start - limit)) if start else None,
    )


def _lines(run: Path, job: Logged, asked: LogRequest) -> Iterator[LogLine]:
    """Those that were asked for: of a job there is one attempt on the wire, however often it had to begin again."""
    if asked.attempt_id not in (None, job.attempt_id):
        return
    wanted = {step.name: step for step in job.steps if _is_wanted(step, asked)}
    found = _printed_by_steps(run, job, wanted) if job.platform else _told_by_engines(run, job)
    for at, name, message in found:
        if step := wanted.get(name):
            timestamp, task = at.astimezone(UTC).replace(tzinfo=None), step.tasks[0].name if step.tasks else name
            yield LogLine(timestamp=timestamp, job=job.name, job_step=name, job_task=task, message=message)


def _is_wanted(step: Step, asked: LogRequest) -> bool:
    tasks = {each for task in step.tasks for each in (task.id, task.name)}
    return asked.step_id in (None, step.id, step.name) and (asked.task_id is None or asked.task_id in tasks)


def _printed_by_steps(run: Path, job: Logged, wanted: Iterable[str]) -> Iterator[tuple[datetime, str, str]]:
    """What the processes of a platform job printed: time, step, message."""
    for step in wanted:
        for attempt in range(1, job.attempt + 1):
            yield from ((at, step, text) for at, text in _printed(step_run(run, step), "step", attempt))


def _told_by_engines(run: Path, job: Logged) -> Iterator[tuple[datetime, str, str]]:
    """What the processes of a customization job printed, and what their events say."""
    for attempt in range(1, job.attempt + 1):
        for phase, step in STEP_OF_PHASE.items():
            yield from ((at, step, text) for at, text in _printed(run, phase, attempt))
        step = DOWNLOAD
        for event in _events(run, attempt):
            if isinstance(event, Started):
                step = TRAINING
            yield datetime.fromtimestamp(event.at, UTC), step, in_words(event)


def _printed(run: Path, phase: local.Phase, attempt: int) -> Iterator[tuple[datetime, str]]:
    after = 0
    while printed := local.read_log(run, phase, attempt, after_line=after):
        after += len(printed)
        for each in printed:
            yield each.at, f"[stderr] {each.text}" if each.stream == "err" else each.text


def step_run(run: Path, step: str) -> Path:
    """Where what is known of a platform job's step lies in the job's run."""
    return run / "steps" / step


def _events(run: Path, attempt: int) -> Iterator[Event]:
    """All that an attempt has said."""
    offset = 0
    while True:
        events, offset = read_events(events_path(run, attempt), offset)
        if not events:
            return
        yield from events


def in_words(event: Event) -> str:
    """An event as a line of a log."""
    match event:
        case Preparing():
            return f"reading rows: {event.rows} so far"
        case PreparedRows():
            return (
                f"{event.training_rows} training and {event.validation_rows} validation rows, "
                f"{event.training_tokens} tokens ({event.trained_tokens} trained on), {event.truncated_rows} cut, "
                f"{event.dropped_rows} dropped: {event.steps} steps, {event.steps_per_epoch} an epoch"
            )
        case Started():
            where = f" in {event.adapted_modules} modules" if event.adapted_modules else ""
            return (
                f"training {event.trained_parameters:,} parameters{where} "
                f"for {event.steps} steps on {event.device} in {event.compute} with {event.threads} threads"
            )
        case Progress():
            speed = event.tokens / event.seconds if event.seconds > 0 else 0.0
            return (
                f"step {event.step} epoch {event.epoch} loss {event.loss:.4f} "
                f"lr {event.learning_rate:.3g} grad_norm {event.grad_norm:.3g} {speed:.0f} tokens/s"
            )
        case Busy():
            return f"step {event.step}{': its validation' if event.doing == 'validation' else ''} goes on"
        case Validated():
            return f"step {event.step} epoch {event.epoch} validation loss {event.loss:.4f}"
        case Sampled():
            return "\n".join(f"step {event.step} {each.prompt!r}: {each.said!r}" for each in event.samples)
        case CheckpointSaved():
            return f"checkpoint of step {event.step} in {event.path}"
        case Warned():
            return f"warning: {event.message}"
        case Finished() | Stopped() | Failed():
            return _last_words(event)


def _last_words(event: Finished | Stopped | Failed) -> str:
    match event:
        case Finished():
            return f"finished at step {event.step}; exported step {event.exported_step} ({event.reason})"
        case Stopped():
            return f"stopped at step {event.step}: {event.wish}"
        case Failed():
            return f"{event.type}: {event.message}" + (f"\n{event.detail}" if event.detail else "")


def _number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isdecimal() or len(cursor) > 12:
        raise BadRequest(f"page_cursor: '{cursor[:40]}' is not a cursor of this log; use next_page of an answer")
    return int(cursor)
