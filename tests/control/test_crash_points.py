"""Server, keeper and trainer die at named places; afterwards every job has one end, and nothing is lost or doubled."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.house import House
from tests.live import AUTOMODEL, JOBS, Wire, eventually

KEY = {"Idempotency-Key": "the-one-job"}
SPEC = {"model": "base", "dataset": {"training": "rows"}, "training": {}, "output": {"name": "tuned"}}


@dataclass(frozen=True)
class Story:
    """Where something dies, and what is to come of it."""

    place: str
    end: str = "completed"
    behaviour: str = "finish"
    action: str = ""
    """What the user asks for while the job trains: `pause` or `cancel`."""
    server_dies: bool = True
    """Else it lives, and a process of the job's dies."""


SERVER = [
    Story("submit-before-commit"),
    Story("submit-after-commit"),
    Story("claim-after-commit"),
    Story("start-before-launch"),
    Story("start-before-record"),
    Story("start-before-record:2", behaviour="slow"),  # the second one is the trainer's
    Story("events-before-commit"),
    Story("events-after-commit:2"),
    Story("register-before-adopt"),
    Story("register-after-adopt"),
    Story("register-before-commit"),
    Story("register-after-commit"),
    Story("cancel-after-wish", "cancelled", "hang", "cancel"),
    Story("pause-after-wish", behaviour="hang-once", action="pause"),
    Story("pause-before-commit", behaviour="hang-once", action="pause"),
]
OTHERS = [
    Story("keeper-before-introduction", "error", server_dies=False),
    Story("keeper-introduced", "error", server_dies=False),
    Story("keeper-ranks-started", "error", server_dies=False),
    Story("keeper-before-verdict", server_dies=False),
    Story("step-done", "error", server_dies=False),  # before the first checkpoint: nothing was gained
    Story("step-done:2", server_dies=False),
    Story("checkpoint-half-written:2", server_dies=False),
    Story("artifact-half-written", server_dies=False),
    Story("finished-unsaid", server_dies=False),
]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "data", "tests.small_platform")
    yield made
    if made.process is not None:
        made.down()


@pytest.mark.parametrize("story", SERVER, ids=lambda story: story.place)
def test_the_server_dies(house: House, story: Story) -> None:
    wire = furnished(house, story)
    with suppress(httpx.TransportError):
        submit(wire)
        act(wire, story)
    assert house.process is not None
    house.process.wait(60)
    wire = Wire(httpx.Client(base_url=house.up().base_url, timeout=30))
    submit(wire)  # what was not acknowledged is asked for again, as a client does
    finish(wire, story)
    check(house, wire, story)


@pytest.mark.parametrize("story", OTHERS, ids=lambda story: story.place)
def test_a_process_of_the_job_dies(house: House, story: Story) -> None:
    wire = furnished(house, story)
    submit(wire)
    finish(wire, story)
    check(house, wire, story)


def furnished(house: House, story: Story) -> Wire:
    """A user with a model and rows, on a server that will die."""
    wire = Wire(httpx.Client(base_url=house.up(TUNESMITH_CRASH_AT=story.place).base_url, timeout=30))
    wire.model()
    wire.dataset(behaviour=story.behaviour)
    return wire


def submit(wire: Wire) -> None:
    answer = wire.http.post(AUTOMODEL, json={"name": "job", "spec": SPEC}, headers=KEY)
    assert answer.status_code == 201, answer.text


def act(wire: Wire, story: Story) -> None:
    if story.action:
        eventually(lambda: wire.state()["status_details"].get("step"), "the first step")
        wire.http.post(f"{JOBS}/job/{story.action}")


def finish(wire: Wire, story: Story) -> None:
    """Wait for the end; what was paused is resumed."""
    if story.action == "pause":
        wire.wait("job", "paused")
        wire.http.post(f"{JOBS}/job/resume")
    state = wire.wait()
    assert state["status"] == story.end, state


def check(house: House, wire: Wire, story: Story) -> None:
    """One end, nothing left running, nothing half made, and what was written is what was applied."""
    page = wire.http.get(JOBS).json()
    assert [job["status"] for job in page["data"]] == [story.end]
    eventually(lambda: house.engines() == [], "all processes to be gone")
    adapters = wire.http.get("/apis/models/v2/workspaces/default/adapters").json()["data"]
    filesets = [each["name"] for each in wire.http.get("/apis/files/v2/workspaces/default/filesets").json()["data"]]
    made = story.end == "completed"
    assert [each["name"] for each in adapters] == (["tuned"] if made else [])
    assert ("tuned" in filesets) == made
    run = house.data_dir / "runs" / page["data"][0]["id"]
    with closing(sqlite3.connect(house.data_dir / "tunesmith.db")) as database:
        assert database.execute("select count(*) from leases").fetchone() == (0,)
        applied = {step for (step,) in database.execute("select step from metrics where series = 'train_loss'")}
        phase, attempts = database.execute("select phase, attempt from jobs").fetchone()
    assert phase == "done"
    written = {event["step"] for event in events(run) if event["kind"] == "progress"}
    assert applied == written
    if made:
        assert applied == set(range(1, 6))
        assert sum(event["kind"] == "finished" for event in events(run)) == 1
    assert len(list(run.glob("train.*.keeper.json"))) <= attempts, "no attempt began twice"
    assert not list((house.data_dir / "blobs" / "incoming").iterdir())


def events(run: Path) -> Iterator[dict[str, Any]]:
    """All that the job's processes said."""
    for file in sorted(run.glob("events.*.jsonl")):
        yield from map(json.loads, file.read_text().splitlines())
