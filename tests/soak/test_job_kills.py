"""A hundred kills of server, keepers and engines while jobs come, go, pause and resume: nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.control.test_crash_points import events
from tests.journeys.house import House
from tests.live import AUTOMODEL, JOBS, Wire, eventually

KILLS = 100
AT_LEAST = 5
"""Kills in each phase."""
PHASES = ("waiting", "preparing", "queued", "training", "registering", "pausing", "paused")
VICTIMS = ("server", "server", "keeper", "rank")
AT_ONCE = 4
"""Jobs that are under way at any time."""
PATIENCE_SECONDS = 4.0
"""Spent on waiting for a phase before whatever is there is killed."""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "data", "tests.small_platform")
    yield made
    if made.process is not None:
        made.down()


def test_a_hundred_kills_lose_nothing(house: House, record_property: Callable[[str, object], None]) -> None:
    chance = random.Random(20261124)
    story = Story(house, chance)
    for number in range(KILLS):
        story.kill(PHASES[number % len(PHASES)], chance.choice(VICTIMS))
    story.finish()
    told = ", ".join(f"{phase} {story.kills[phase]}" for phase in PHASES)
    record_property("covered", f"kills by phase of a job: {told}; {len(story.names)} jobs, ends {dict(story.ends)}")
    assert all(story.kills[phase] >= AT_LEAST for phase in PHASES), told


class Story:
    """A user who keeps some jobs under way, and somebody who kills."""

    def __init__(self, house: House, chance: random.Random) -> None:
        self.house = house
        self.chance = chance
        self.kills: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.names: list[str] = []
        self.hanging: set[str] = set()
        """Jobs that train until they are told to pause."""
        self.start()
        self.wire.model()
        for behaviour in ("slow", "finish", "hang-once"):
            self.wire.dataset(behaviour, behaviour, rows=80)

    def start(self) -> None:
        self.wire = Wire(httpx.Client(base_url=self.house.up(TUNESMITH_CPU_SLOTS="2").base_url, timeout=30))

    def kill(self, phase: str, victim: str) -> None:
        """Wait for a job in that phase, then kill; the server comes back at once."""
        found = self.look_for(phase)
        if found is None:
            found, phase = None, "none"
        target = self.target(victim, found)
        self.kills[phase] += 1
        if target is None:
            self.house.kill()
        else:
            with suppress(ProcessLookupError):
                os.kill(target, signal.SIGKILL)
        if self.house.process is not None and self.house.process.poll() is not None:
            self.start()

    def look_for(self, phase: str) -> str | None:
        """The id of a job in that phase, brought about as far as a user can; None if there is none for long."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            self.keep_going(phase)
            for job_id, now in self.phases().items():
                if now == phase:
                    return job_id
            time.sleep(0.003)
        return None

    def keep_going(self, phase: str) -> None:
        """Enough jobs, some of them paused or resumed."""
        states = self.states()
        live = [name for name, state in states.items() if state not in ("completed", "error", "cancelled")]
        with suppress(httpx.TransportError):
            if len(live) < AT_ONCE:
                self.submit("hang-once" if phase in ("pausing", "paused") else self.chance.choice(["slow", "finish"]))
            for name in live:
                if states[name] == "active" and phase in ("pausing", "paused"):
                    self.wire.http.post(f"{JOBS}/{name}/pause")
                    return
                if states[name] == "paused" and phase != "paused":
                    self.wire.http.post(f"{JOBS}/{name}/resume")

    def submit(self, behaviour: str) -> None:
        name = f"job-{len(self.names)}"
        spec = {"model": "base", "dataset": {"training": behaviour}, "training": {}, "output": {"name": f"out-{name}"}}
        answer = self.wire.http.post(
            AUTOMODEL, json={"name": name, "spec": spec}, headers={"Idempotency-Key": f"key-{name}"}
        )
        assert answer.status_code == 201, answer.text
        self.names.append(name)
        if behaviour == "hang-once":
            self.hanging.add(name)

    def target(self, victim: str, job_id: str | None) -> int | None:
        """The process to kill; None means the server."""
        if victim == "server" or job_id is None:
            return None
        files = sorted((self.house.data_dir / "runs" / job_id).glob("*.keeper.json"), key=lambda p: p.stat().st_mtime)
        for file in reversed(files):
            known = json.loads(file.read_text())
            pid = known["pid"] if victim == "keeper" else known["ranks"][0]["pid"] if known["ranks"] else None
            if pid and psutil.pid_exists(pid):
                return int(pid)
        return None

    # -- what the database says, past the server -------------------------------------------------------------------

    def rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.house.data_dir}/tunesmith.db?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()

    def states(self) -> dict[str, str]:
        return dict(self.rows("select name, status from jobs"))

    def phases(self) -> dict[str, str]:
        """By job: the phase, or what it is on the way to."""
        found = {}
        for job_id, phase, status, ending in self.rows("select id, phase, status, ending from jobs"):
            said = json.loads(ending)["kind"] if ending and ending != "null" else ""
            found[job_id] = (
                "registering"
                if said == "finished" and phase == "training"
                else "pausing"
                if status == "pausing"
                else phase
            )
        return found

    def finish(self) -> None:
        """Everything comes to its one end, and the end is as it should be."""
        for name in self.names:
            eventually(lambda n=name: self.brought_on(n), f"{name} to end", 120)
        eventually(lambda: self.house.engines() == [], "all processes to be gone")
        states = self.states()
        self.ends = Counter(states.values())
        assert sorted(states) == sorted(self.names)
        adapters = self.wire.http.get("/apis/models/v2/workspaces/default/adapters?page_size=1000").json()["data"]
        made = sorted(f"out-{name}" for name, state in states.items() if state == "completed")
        assert sorted(each["name"] for each in adapters) == made
        assert self.rows("select count(*) from leases") == [(0,)]
        for job_id, status in self.rows("select id, status from jobs"):
            run = self.house.data_dir / "runs" / job_id
            steps = self.rows(f"select step from metrics where series = 'train_loss' and job_id = '{job_id}'")
            written = {event["step"] for event in events(run) if event["kind"] == "progress"}
            assert {step for (step,) in steps} == written, job_id
            assert sum(event["kind"] == "finished" for event in events(run)) == (status == "completed"), job_id
        assert not list((self.house.data_dir / "blobs" / "incoming").iterdir())

    def brought_on(self, name: str) -> bool:
        """Whether a job has ended; one that is paused is resumed, and one that waits for a wish gets one."""
        status = self.wire.state(name)["status"]
        if status == "paused":
            self.wire.http.post(f"{JOBS}/{name}/resume")
        elif status == "active" and name in self.hanging:
            self.hanging.discard(name)
            self.wire.http.post(f"{JOBS}/{name}/pause")
        return status in ("completed", "error", "cancelled")
