"""The supervisor fed by an events file: every event counts once, and a job has one end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.planning.knobs import BASE, FACTS
from tunesmith.api.filesets import CreateFileset
from tunesmith.api.jobs import CreateAutomodelJob, JobState, JobStatus
from tunesmith.api.models import CreateModel
from tunesmith.control import jobs, registration, scheduler, submission, supervisor
from tunesmith.errors import Conflict
from tunesmith.handoff.events import (
    ArtifactFile,
    EventLog,
    Failed,
    Finished,
    PreparedRows,
    Progress,
    Validated,
    Warned,
    read_events,
)
from tunesmith.planning.automodel import lower
from tunesmith.refs import Ref
from tunesmith.store.database import Database, Tx

REF = Ref("default", "job")
DIGEST = hashlib.sha256(b"weights").hexdigest()
FINISHED = Finished(
    step=2, exported_step=1, reason="lowest_validation_loss", files=(ArtifactFile(path="w", digest=DIGEST, size=7),)
)
ROWS = PreparedRows(
    training_rows=9,
    validation_rows=1,
    training_tokens=90,
    trained_tokens=30,
    truncated_rows=0,
    dropped_rows=0,
    steps=2,
    steps_per_epoch=2,
)


def progress(step: int, loss: float = 1.0) -> Progress:
    return Progress(
        step=step, epoch=1, loss=loss, learning_rate=0.1, grad_norm=1.0, tokens=10 * step, seconds=2.0 * step
    )


def submitted(tx: Tx) -> str:
    """A job in its training phase, with the one device leased; returns its id."""
    for name in ("base", "rows"):
        tx.filesets.create("default", CreateFileset(name=name))
        tx.filesets.put("default", name, "f", DIGEST, 7)
    tx.models.create("default", CreateModel(name="base", fileset="base"), Ref("default", "base"))
    asked = CreateAutomodelJob.model_validate({"spec": {**BASE, "output": {"name": "tuned"}}})
    plan = lower(asked.spec, FACTS, run="id", model="default/base")
    job_asked = submission.Asked("automodel", asked, asked.spec)
    inputs = submission.resolve(tx, "default", job_asked.dialect, asked.spec)
    job = submission.insert(tx, REF, "id", job_asked, inputs, plan)
    assert scheduler.claim(tx, ["cpu:0"]) == 1
    supervisor.queue(tx, job.id)
    assert scheduler.claim(tx, ["cpu:0"]) == 1
    return job.id


class Line:
    """A database with one training job, and an events file to feed it from."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "t.db")
        self.path = folder / "events.1.jsonl"
        self.say = EventLog(self.path)
        self.id = self.write(submitted)

    def write(self, verb: Callable[..., Any], *args: Any) -> Any:
        return asyncio.run(self.database.write(verb, *args))

    def read(self, verb: Callable[..., Any], *args: Any) -> Any:
        return asyncio.run(self.database.read(verb, *args))

    def feed(self) -> None:
        """One look at the file, as the supervisor takes it."""
        offset = self.stored().events_offset
        events, behind = read_events(self.path, offset)
        self.write(supervisor.apply, self.id, offset, events, behind)

    def stored(self) -> Any:
        return self.read(lambda tx: tx.jobs.by_id(self.id))

    def state(self) -> JobState:
        return self.read(lambda tx: tx.jobs.state("default", "job"))

    def free(self) -> list[str]:
        return self.read(lambda tx: tx.leases.free(["cpu:0"]))


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path)
    yield line
    line.database.close()


def test_a_half_written_line_is_not_there_yet(line: Line) -> None:
    line.say(progress(1))
    with line.path.open("ab") as file:
        file.write(b'{"kind":"progress","st')
    line.feed()
    assert line.state().status_details["step"] == 1
    with line.path.open("r+b") as file:
        file.truncate(line.stored().events_offset)
    line.say(progress(2))
    line.feed()
    assert line.state().status_details["step"] == 2


def test_events_that_are_applied_twice_count_once(line: Line) -> None:
    line.say(Warned(message="careful"))
    line.say(progress(1))
    events, behind = read_events(line.path, 0)
    for _ in range(2):
        line.write(supervisor.apply, line.id, 0, events, behind)
    details = line.state().status_details
    assert details["warnings"] == ["careful"]
    assert [point["step"] for point in details["metrics"]["train_loss"]] == [1]


def test_the_last_word_about_a_step_wins(line: Line) -> None:
    for loss in (3.0, 2.0):
        line.say(progress(1, loss))
        line.feed()
    assert line.state().status_details["metrics"]["train_loss"] == [{"step": 1, "epoch": 1, "value": 2.0}]


def test_a_loss_that_is_no_number_is_shown_as_null(line: Line) -> None:
    line.say(progress(1, float("nan")))
    line.say(Validated(step=1, epoch=1, loss=float("inf")))
    line.feed()
    details = line.state().model_dump(mode="json")["status_details"]
    assert details["train_loss"] is details["val_loss"] is None
    assert details["metrics"]["train_loss"][0]["value"] is None


def test_long_series_are_thinned_to_500_points_and_keep_their_ends(line: Line) -> None:
    for step in range(1, 1201):
        line.say(progress(step))
    line.feed()
    shown = line.state().status_details["metrics"]["train_loss"]
    assert len(shown) == 500
    assert (shown[0]["step"], shown[-1]["step"]) == (1, 1200)


def test_an_end_gives_the_device_back_and_happens_once(line: Line) -> None:
    assert line.free() == []
    line.write(registration.end, line.id, JobStatus.ERROR, supervisor.failure("CudaError", "no"))
    assert line.free() == ["cpu:0"]
    state = line.state()
    assert (state.status, state.error_details) == ("error", {"message": "no", "type": "CudaError", "detail": ""})
    assert [(step.name, step.status) for step in state.steps] == [
        ("model-and-dataset-download", "completed"),
        ("training", "error"),
    ]
    with pytest.raises(Conflict):
        line.write(registration.end, line.id, JobStatus.COMPLETED)
    with pytest.raises(Conflict):
        line.write(registration.register, line.id, FINISHED)
    assert line.state().status == "error"


def test_a_result_is_registered_whole_or_not_at_all(line: Line) -> None:
    line.write(lambda tx: tx.filesets.create("default", CreateFileset(name="tuned")))
    with pytest.raises(Conflict, match="Fileset 'default/tuned' already exists"):
        line.write(registration.register, line.id, FINISHED)
    assert line.state().status == "active"
    assert line.read(lambda tx: tx.adapters.find_row("default", "tuned")) is None
    assert line.read(lambda tx: tx.filesets.snapshot(Ref("default", "tuned"))).files == ()


def test_a_cancel_that_comes_while_the_result_is_registered_wins(line: Line) -> None:
    line.write(jobs.cancel, REF)
    line.write(registration.register, line.id, FINISHED)
    assert line.state().status == "cancelled"
    assert line.read(lambda tx: tx.adapters.find_row("default", "tuned")) is None
    assert line.free() == ["cpu:0"]


def test_events_after_the_end_change_nothing(line: Line) -> None:
    line.write(registration.end, line.id, JobStatus.CANCELLED)
    line.say(progress(1))
    line.feed()
    assert "step" not in line.state().status_details


def test_the_last_event_is_kept_until_the_process_is_gone(line: Line) -> None:
    line.say(ROWS)
    line.say(Failed(type="CudaError", message="no", detail=""))
    line.feed()
    assert line.stored().ending["kind"] == "failed"
    assert line.state().status == "active"
