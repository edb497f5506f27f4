"""A pause is a pause, also when the trainer does not live to hear of it, and when the server goes in the middle; who
was out of memory is not tried again."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.live import JOBS, LiveServer, Wire, eventually, settings
from tunesmith.control import runs, services

pytestmark = pytest.mark.usefixtures("small_trainer")


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that is told to end has a moment for it."""
    monkeypatch.setattr(runs, "GRACE_SECONDS", 0.3)


def began(live: LiveServer, wire: Wire, name: str = "job") -> Callable[[], bool]:
    """Whether a trainer of the job has been started."""
    return lambda: any(live.services.data_dir.run(wire.state(name)["id"]).glob("train.1.keeper.json"))


def at_step(wire: Wire, step: int, name: str = "job") -> None:
    eventually(lambda: wire.state(name)["status_details"].get("step") == step, f"step {step} of {name}")


def all_steps(details: dict[str, Any]) -> bool:
    return [point["step"] for point in details["metrics"]["train_loss"]] == list(range(1, details["max_steps"] + 1))


def test_a_trainer_that_does_not_hear_of_a_pause_is_killed_and_its_checkpoint_is_where_it_goes_on(wire: Wire) -> None:
    wire.model()
    wire.dataset(behaviour="deaf-once")
    wire.submit()
    at_step(wire, 2)
    wire.http.post(f"{JOBS}/job/pause")
    paused = wire.wait("job", "paused", "error")
    assert paused["status"] == "paused", paused
    assert [step["status"] for step in paused["steps"]] == ["completed", "paused"]
    assert paused["status_details"]["paused_at_step"] == 1
    assert "behind step 1, up to 2, is lost" in paused["status_details"]["warnings"][-1]
    wire.http.post(f"{JOBS}/job/resume")
    done = wire.wait()
    assert done["status"] == "completed", done
    assert done["status_details"]["resumed_from_step"] == 1
    assert all_steps(done["status_details"])


def test_a_job_that_is_still_loading_is_paused_at_once_and_begins_when_it_is_resumed(
    wire: Wire, live: LiveServer
) -> None:
    wire.model()
    wire.dataset(behaviour="load-once")
    wire.submit()
    eventually(began(live, wire), "the trainer")
    wire.http.post(f"{JOBS}/job/pause")
    paused = wire.wait("job", "paused", "error")
    assert paused["status"] == "paused", paused
    assert not any("lost" in warning for warning in paused["status_details"]["warnings"])
    wire.http.post(f"{JOBS}/job/resume")
    done = wire.wait()
    assert done["status"] == "completed", done
    assert all_steps(done["status_details"])


def test_a_trainer_that_is_killed_while_it_is_pausing_is_paused_too(wire: Wire, live: LiveServer, monkeypatch) -> None:
    monkeypatch.setattr(runs, "GRACE_SECONDS", 60.0)
    wire.model()
    wire.dataset(behaviour="deaf-once")
    wire.submit()
    at_step(wire, 2)
    wire.http.post(f"{JOBS}/job/pause")
    run = live.services.data_dir.run(wire.state()["id"])
    eventually((run / "wish.json").exists, "the wish")
    os.kill(json.loads((run / "train.1.keeper.json").read_text())["ranks"][0]["pid"], signal.SIGKILL)
    assert wire.wait("job", "paused", "error")["status"] == "paused"


def test_a_server_that_stops_starts_no_job_in_the_place_of_one_that_rests(tmp_path: Path) -> None:
    with LiveServer(settings(tmp_path)) as live:
        wire = Wire(live.http)
        wire.model()
        wire.dataset(behaviour="hang-once")
        wire.dataset("other")
        wire.submit("first")
        at_step(wire, 1, "first")
        wire.submit("second", dataset={"training": "other"})
        eventually(lambda: wire.state("second")["status_details"]["phase"] == "queued", "the second job to queue")
        run = live.services.data_dir.run(wire.state("second")["id"])
    assert not list(run.glob("train.*"))
    with LiveServer(settings(tmp_path)) as live:
        wire = Wire(live.http)
        for name in ("first", "second"):
            assert wire.wait(name)["status"] == "completed"


def leave_pausing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose patience ends before the trainer does."""
    monkeypatch.setattr(runs, "GRACE_SECONDS", 2.0)
    monkeypatch.setattr(services, "GRACE_SECONDS", -4.8)
    with LiveServer(settings(tmp_path)) as live:
        wire = Wire(live.http)
        wire.model()
        wire.dataset(behaviour="deaf-once")
        wire.submit()
        at_step(wire, 2)


def test_what_a_server_left_pausing_goes_on_with_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_pausing(tmp_path, monkeypatch)
    with LiveServer(settings(tmp_path)) as live:
        wire = Wire(live.http)
        assert wire.state()["status"] == "pausing"
        done = wire.wait()
        assert done["status"] == "completed", done
        assert done["status_details"]["resumed_from_step"] == 1
        assert all_steps(done["status_details"])


def test_who_pauses_what_a_server_left_pausing_has_it_paused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_pausing(tmp_path, monkeypatch)
    with LiveServer(settings(tmp_path)) as live:
        wire = Wire(live.http)
        wire.http.post(f"{JOBS}/job/pause")
        assert wire.wait("job", "paused", "completed", "error")["status"] == "paused"


def test_a_trainer_that_the_kernel_ended_for_want_of_memory_is_not_tried_again(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had a checkpoint to go on from; the keeper's word for why it died is put into its mouth."""
    ended = runs.Runs.ended

    def out_of_memory(self: runs.Runs, job: Any, identity: Any) -> Any:
        exit_ = ended(self, job, identity)
        return replace(exit_, out_of_memory=True) if exit_ and exit_.signal == "SIGKILL" else exit_

    monkeypatch.setattr(runs.Runs, "ended", out_of_memory)
    wire.model()
    wire.dataset(behaviour="die-once")
    wire.submit()
    state = wire.wait()
    assert state["status"] == "error"
    assert "killed by SIGKILL (out of memory)" in state["error_details"]["message"]
    assert "smaller batch.micro_batch_size, training.max_seq_length or " in state["error_details"]["detail"]
    assert state["status_details"]["checkpoint_step"] == 1
    assert "attempt" not in state["status_details"]
