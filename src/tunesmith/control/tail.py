"""What a job's log has gained: new lines since a position, read without going over the old ones again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from tunesmith.api.jobs import DOWNLOAD, TRAINING, LogLine
from tunesmith.control.launch import local
from tunesmith.control.logs import STEP_OF_PHASE, Logged, in_words, step_run
from tunesmith.handoff.events import Started, events_path, read_events

Position = Mapping[str, int]
"""By source of lines: how many bytes of its file were read; a source that was not begun is absent."""
READ_BYTES = 64 * 1024
"""Of one source at once."""
BEGAN = "began"
"""Marks an attempt whose training has begun: from there on its events belong to the training step."""


def gained(run: Path, job: Logged, position: Position) -> tuple[list[LogLine], dict[str, int]]:
    """Lines past `position`, those of one reading in the order of time, and the position behind them. Blocking."""
    behind = dict(position)
    tasks = {step.name: step.tasks[0].name if step.tasks else step.name for step in job.steps}
    lines = []
    for at, step, message in sorted(_new(run, job, behind), key=lambda line: line[0]):
        timestamp = at.astimezone(UTC).replace(tzinfo=None)
        task = tasks.get(step, step)
        lines.append(LogLine(timestamp=timestamp, job=job.name, job_step=step, job_task=task, message=message))
    return lines, behind


def _new(run: Path, job: Logged, behind: dict[str, int]) -> Iterator[tuple[datetime, str, str]]:
    """Time, step and text of what is new; moves `behind` on."""
    for attempt in range(1, job.attempt + 1):
        if job.platform:
            for step in job.steps:
                yield from _printed(step_run(run, step.name), "step", attempt, step.name, f"{step.name}.", behind)
            continue
        for phase, name in STEP_OF_PHASE.items():
            yield from _printed(run, phase, attempt, name, "", behind)
        yield from _told(run, attempt, behind)


def _printed(
    run: Path, phase: local.Phase, attempt: int, step: str, prefix: str, behind: dict[str, int]
) -> Iterator[tuple[datetime, str, str]]:
    """What processes printed."""
    source = f"{prefix}{phase}.{attempt}"
    try:
        with local.log_path(run, phase, attempt).open("rb") as file:
            start = file.seek(behind.get(source, 0))
            if whole := _whole_lines(file):
                behind[source] = start + len(whole)
            lines = [local.log_line(raw, file) for raw in whole.split(b"\n")[:-1]]
    except FileNotFoundError:
        return
    for each in lines:
        yield each.at, step, f"[stderr] {each.text}" if each.stream == "err" else each.text


def _whole_lines(file: IO[bytes]) -> bytes:
    """About READ_BYTES from where the file stands, to the end of a line; an unfinished one is not there yet."""
    chunk = file.read(READ_BYTES)
    while len(chunk) >= READ_BYTES and b"\n" not in chunk and (more := file.read(READ_BYTES)):
        chunk += more
    return chunk[: chunk.rfind(b"\n") + 1]


def _told(run: Path, attempt: int, behind: dict[str, int]) -> Iterator[tuple[datetime, str, str]]:
    """What events say."""
    source, began = f"events.{attempt}", f"{BEGAN}.{attempt}"
    events, end = read_events(events_path(run, attempt), behind.get(source, 0), READ_BYTES)
    if events:
        behind[source] = end
    for event in events:
        if isinstance(event, Started):
            behind[began] = 1
        yield datetime.fromtimestamp(event.at, UTC), TRAINING if began in behind else DOWNLOAD, in_words(event)
