"""The crash points of the jobs service with the real trainer: whatever comes between, the end is the same, bit by bit.

One platform, `tunesmith up` as a process of its own, for all of it. A trainer is stopped (SIGSTOP) in the middle of its
work, then what happens happens, then it goes on: so everything falls into a step.
"""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.journeys.house import House
from tests.live import eventually
from tests.models import tiny_llama
from tunesmith import Tunesmith

pytestmark = pytest.mark.xdist_group("real trainer")  # in one process: each would start a platform and train twice

INTERRUPTED = 130
EACH_STEP = {"TUNESMITH_CHECKPOINT_SECONDS": "0"}
SPEC: dict[str, Any] = {
    "model": "base",
    "dataset": {"training": "rows"},
    "training": {"lora": {"rank": 8, "dropout": 0.1}, "max_seq_length": 128, "precision": "fp32"},
    "schedule": {"epochs": 3, "val_check_interval": 4},
    "batch": {"micro_batch_size": 2},
    "optimizer": {"learning_rate": 1e-2},
}
STEPS = 15
ROOM = 4 << 20
"""Bytes for the words of a trainer that gets no more."""


@dataclass
class Platform:
    """A platform that may go and come back, and its user."""

    house: House
    client: Tunesmith

    def submit(self, name: str, **changes: Any) -> Path:
        """A job whose result has its name; returns where its run will be."""
        spec = {**SPEC, **changes, "output": {"name": name}}
        job = self.client.customization.automodel.jobs.create(name=name, spec=spec)
        return self.house.data_dir / "runs" / job.id

    def wait(self, name: str, *statuses: str) -> Any:
        wanted = statuses or ("completed", "error", "cancelled")

        def there() -> Any:
            state = self.client.jobs.get_status(name)
            return state if state.status in wanted else None

        return eventually(there, f"{name} to be {' or '.join(wanted)}")

    def result(self, name: str) -> tuple[dict[str, Any], dict[str, str]]:
        """The losses by step, and the digests of the result's weights and configuration, of a completed job."""
        state = self.wait(name)
        assert state.status == "completed", state.error_details
        metrics = state.status_details["metrics"]
        said = {kind: {point["step"]: point["value"] for point in metrics[kind]} for kind in ("train_loss", "val_loss")}
        events = [json.loads(line) for line in last_events(self.run(state.id)).read_text().splitlines()]
        files = {each["path"]: each["digest"] for each in events[-1]["files"]}
        return said, {
            name: files[name] for name in ("adapter_config.json", "adapter_model.safetensors", "tunesmith_probe.json")
        }

    def run(self, job_id: str) -> Path:
        return self.house.data_dir / "runs" / job_id


def last_events(run: Path) -> Path:
    return max(run.glob("events.*.jsonl"), key=lambda path: int(path.name.split(".")[1]))


def held_in_a_step(run: Path, step: int = 3) -> psutil.Process:
    """The trainer, stopped after so many steps."""

    def far_enough() -> bool:
        with suppress(FileNotFoundError):
            return (run / "events.1.jsonl").read_text().count('"kind":"progress"') >= step
        return False

    eventually(far_enough, f"step {step}", every=0.003)
    ranks = json.loads((run / "train.1.keeper.json").read_text())["ranks"]
    trainer = psutil.Process(ranks[0]["pid"])
    trainer.send_signal(signal.SIGSTOP)
    assert not (run / "train.1.exit.json").exists(), "the job was too fast to be held"
    return trainer


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    bases = {"base": 128, "wide": 24_576}
    house = House(tmp_path_factory.mktemp("platform") / "data")
    platform = Platform(house, house.up(**EACH_STEP))
    client = platform.client
    for name, width in bases.items():
        checkpoint = tmp_path_factory.mktemp(name)
        tiny_llama(checkpoint, hidden_size=64, intermediate_size=width)
        client.files.filesets.create(name, purpose="model")
        client.files.upload(f"{checkpoint}/", fileset=name)
        client.models.create(name, fileset=f"default/{name}")
    rows = (
        {"prompt": f"what is {n} and the number that comes after it?", "completion": f"{n} and {n + 1}"}
        for n in range(40)
    )
    client.files.filesets.create("rows", purpose="dataset")
    client.files.upload_content("".join(json.dumps(row) + "\n" for row in rows), "train.jsonl", fileset="rows")
    yield platform
    house.down()
    left = house.engines()
    for process in left:
        process.kill()
    assert left == []


@pytest.fixture(scope="module")
def undisturbed(platform: Platform) -> tuple[dict[str, Any], dict[str, str]]:
    """What comes of the job when nothing comes between."""
    platform.submit("undisturbed")
    said, files = platform.result("undisturbed")
    assert list(said["train_loss"]) == list(range(1, STEPS + 1))
    assert said["train_loss"][STEPS] < said["train_loss"][1]
    return said, files


def test_a_job_that_is_paused_in_a_step_goes_on_and_ends_the_same(
    platform: Platform, undisturbed: tuple[dict[str, Any], dict[str, str]]
) -> None:
    run = platform.submit("paused")
    trainer = held_in_a_step(run)
    platform.client.jobs.pause("paused")
    eventually((run / "wish.json").exists, "the wish")
    trainer.send_signal(signal.SIGCONT)
    details = platform.wait("paused", "paused", "completed", "error").status_details
    assert details["phase"] == "paused", details
    assert 3 <= details["paused_at_step"] == details["checkpoint_step"] < STEPS
    platform.client.jobs.resume("paused")
    assert platform.result("paused") == undisturbed


def test_a_trainer_that_is_killed_in_a_step_is_started_again_and_ends_the_same(
    platform: Platform, undisturbed: tuple[dict[str, Any], dict[str, str]]
) -> None:
    run = platform.submit("killed")
    held_in_a_step(run).kill()
    assert platform.result("killed") == undisturbed
    details = platform.client.jobs.get_status("killed").status_details
    assert details["attempt"] == 2
    assert details["resumed_from_step"] >= 2


def test_a_job_that_is_cancelled_in_a_step_ends_and_leaves_nothing(platform: Platform) -> None:
    run = platform.submit("cancelled")
    trainer = held_in_a_step(run)
    platform.client.jobs.cancel("cancelled")
    eventually((run / "wish.json").exists, "the wish")
    trainer.send_signal(signal.SIGCONT)
    assert platform.wait("cancelled").status == "cancelled"
    eventually(lambda: not trainer.is_running(), "the trainer to be gone")
    assert not (run / "artifact").exists()
    assert "cancelled" not in [adapter.name for adapter in platform.client.adapters.list()]


def test_a_trainer_that_gets_no_more_memory_ends_the_job_and_says_what_to_lower(platform: Platform) -> None:
    """A limit on its address space stands in for the machine's end of memory; a pass takes some 300 MB."""
    run = platform.submit("starved", model="wide", batch={"micro_batch_size": 4})
    trainer = held_in_a_step(run, 1)
    most = trainer.memory_info().vms + ROOM
    resource.prlimit(trainer.pid, resource.RLIMIT_AS, (most, most))
    trainer.send_signal(signal.SIGCONT)
    state = platform.wait("starved")
    assert state.status == "error", "it goes on, with less than it took"
    assert state.error_details["type"] == "TrainingEnvironmentError", state.error_details
    assert state.error_details["message"].startswith("memory ran out: ")
    assert "smaller batch.micro_batch_size, training.max_seq_length or " in state.error_details["message"]
    assert state.status_details.get("attempt", 1) == 1, "it is not tried again"


def test_a_job_goes_on_after_ctrl_c_and_ends_the_same_in_a_process_that_starts_afresh(
    platform: Platform, undisturbed: tuple[dict[str, Any], dict[str, str]]
) -> None:
    """The first half runs where the imports were done, the second one in a process of its own."""
    run = platform.submit("interrupted")
    trainer = held_in_a_step(run)
    house = platform.house
    assert house.process is not None
    house.process.send_signal(signal.SIGINT)
    eventually((run / "wish.json").exists, "the wish")
    trainer.send_signal(signal.SIGCONT)
    assert house.process.wait(60) == INTERRUPTED
    assert house.engines() == []
    platform.client = house.up(TUNESMITH_WARM_SECONDS="0", **EACH_STEP)
    assert platform.result("interrupted") == undisturbed
    living = (each for each in psutil.Process(house.process.pid).children() if each.status() != psutil.STATUS_ZOMBIE)
    assert not any("forker.py" in " ".join(each.cmdline()) for each in living)
