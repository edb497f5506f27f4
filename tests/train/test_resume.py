"""A run that was killed, paused or damaged goes on and ends with the same losses and the same bytes."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.runs import finish, losses, said, start, train
from tunesmith.errors import EngineError
from tunesmith.handoff.crash import VARIABLE
from tunesmith.handoff.plan import Epochs, EverySteps, MlflowPart, Plan, TrackersPart
from tunesmith.handoff.prepared import Prepared
from tunesmith.handoff.wish import Wish
from tunesmith.train import checkpoint, disk, pace, rehearsal
from tunesmith.train.checkpoint import checkpoint_directories, digest_of, step_directory
from tunesmith.train.optim import Optimizer

STEPS = 9
HARD = {
    "adapter": {"dropout": 0.2},
    "model": {"compute": "bf16"},
    "data": {"split_fraction": 0.2},
    "schedule": {
        "stop": Epochs(epochs=3),
        "validate_at": EverySteps(steps=2),
        "rows_per_step": 3,
        "tokens_per_pass": 40,
    },
}
"""Dropout, rounding, two threads, several passes a step, and validations that are not at the ends of epochs."""


@pytest.fixture
def run(make_run) -> Path:
    return make_run(**HARD)


@pytest.fixture(scope="module")
def undisturbed(make_a_run) -> Path:
    """A whole run that nobody touched."""
    whole = make_a_run("undisturbed", **HARD)
    assert finish(whole) == 0
    assert len(losses(said(whole))) == STEPS
    return whole


@pytest.fixture
def ended(undisturbed, tmp_path) -> Path:
    """A copy of it to spoil."""
    return shutil.copytree(undisturbed, tmp_path / "ended", symlinks=True)


def story(run: Path, attempts: int) -> dict[str, dict[int, float]]:
    """What all attempts said of each step; the last one counts."""
    told: dict[str, dict[int, float]] = {"progress": {}, "validated": {}}
    for attempt in range(1, attempts + 1):
        for event in said(run, attempt):
            if event.kind in told:
                told[event.kind][event.step] = event.loss
    return told


def assert_same_end(run: Path, undisturbed: Path, attempts: int) -> None:
    assert story(run, attempts) == story(undisturbed, 1)
    ours, theirs = said(run, attempts)[-1], said(undisturbed)[-1]
    assert ours.model_copy(update={"at": 0}) == theirs.model_copy(update={"at": 0})
    for file in ours.files:
        assert hashlib.sha256((run / "artifact" / file.path).read_bytes()).hexdigest() == file.digest


@pytest.mark.parametrize(
    ("place", "from_step"),
    [
        ("step-done:1", 0),
        ("step-done:4", 3),
        ("pass-done:5", 2),  # inside accumulation: step 3 has two passes
        ("checkpoint-half-written:5", 4),
        ("artifact-half-written", STEPS),
        ("finished-unsaid", STEPS),
    ],
)
def test_a_run_killed_anywhere_goes_on_and_ends_the_same(run, undisturbed, place, from_step):
    assert finish(run, **{VARIABLE: place}) == -signal.SIGKILL
    assert finish(run, attempt=2) == 0
    (started,) = [event for event in said(run, 2) if event.kind == "started"]
    assert started.from_step == from_step
    assert_same_end(run, undisturbed, 2)
    assert not list(run.rglob("*.tmp"))


def test_what_fitted_is_not_refused_when_it_is_taken_up(run, monkeypatch):
    """Its running means are in memory then, and are not counted a second time."""
    left, restore = [1 << 40], Optimizer.restore
    monkeypatch.setattr(rehearsal, "available_bytes", lambda device: left[0])

    def restored(optimizer, state):
        left[0] = 0
        restore(optimizer, state)

    def pause(event):
        if event.kind == "progress":
            Wish(wish="pause").write(run / "wish.json")

    monkeypatch.setattr(Optimizer, "restore", restored)
    assert train(run, pause)[-1].kind == "stopped"
    (run / "wish.json").unlink()
    assert train(run)[-1].kind == "finished"
    assert left == [0]


def test_a_run_that_dies_again_and_again_gets_to_the_same_end(run, undisturbed):
    """Each attempt is killed some time after its second step."""
    for attempt in itertools.count(1):
        process = start(run, attempt)
        while process.is_alive() and len(losses(said(run, attempt))) < 2:
            time.sleep(0.002)
        if attempt <= 3:
            process.kill()
        process.join(60)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert attempt > 1
    assert_same_end(run, undisturbed, attempt)


@pytest.mark.parametrize("step", [3, 4], ids=["before a step", "before a validation"])
def test_a_paused_run_goes_on_and_ends_the_same(make_run, step):
    """The wish comes during a step; in between others trained in the same process, and the clock went on."""

    def wish(event):
        if event.kind == "progress" and event.step == step:
            Wish(wish="pause").write(paused / "wish.json")

    paused, whole = make_run("paused", **HARD), make_run("whole", **HARD)
    before = train(paused, wish)
    assert [(event.kind, event.step) for event in before[-2:]] == [("checkpoint", step), ("stopped", step)]
    assert before[-1].wish == "pause"
    expected = train(whole)
    (paused / "wish.json").unlink()
    after = train(paused)
    assert after[0].from_step == step
    assert losses(before) + losses(after) == losses(expected)
    assert losses(before, "validated") + losses(after, "validated") == losses(expected, "validated")
    assert after[-1].files == expected[-1].files
    tokens = [event.tokens for event in before + after if event.kind == "progress"]
    assert tokens == [event.tokens for event in expected if event.kind == "progress"]
    assert [event.kind for event in after[-3:]] == ["checkpoint", "sampled", "finished"]


@pytest.mark.parametrize("wish", ["pause", "cancel"])
def test_a_wish_that_stands_there_at_the_start_is_heard_before_the_model_is_loaded(make_run, wish):
    run = make_run()
    Wish(wish=wish).write(run / "wish.json")
    (run / "inputs/model").unlink()
    (stopped,) = train(run)
    assert (stopped.kind, stopped.step, stopped.wish) == ("stopped", 0, wish)


def test_a_finished_run_exports_the_same_again(ended, undisturbed):
    again = train(ended)
    assert [event.kind for event in again] == ["started", "finished"]
    assert again[0].from_step == STEPS
    assert again[-1].files == said(undisturbed)[-1].files


def test_a_checkpoint_is_read_through_once_and_of_the_best_its_weights(ended, monkeypatch):
    """Each reading of a large model's takes seconds."""
    newest, read = checkpoint_directories(ended)[-1], []
    monkeypatch.setattr(checkpoint, "sha256_of", lambda path: read.append(path) or disk.sha256_of(path))
    exported = train(ended)[-1].exported_step
    best = [] if exported == STEPS else [step_directory(ended, exported) / "weights.safetensors"]
    assert sorted(read) == sorted([newest / "optimizer.safetensors", newest / "weights.safetensors", *best])


def test_a_sigterm_that_no_wish_explains_saves_and_ends_by_that_signal(run, undisturbed):
    process = start(run, TUNESMITH_CHECKPOINT_SECONDS="3600")
    while not (run / "events.1.jsonl").exists() or not losses(said(run)):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    last = said(run)[-1]
    if last.kind == "finished":
        pytest.fail("the run was too fast for its signal")
    assert (process.exitcode, last.kind) == (-signal.SIGTERM, "checkpoint")
    assert finish(run, attempt=2) == 0
    assert_same_end(run, undisturbed, 2)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("weights.safetensors", flip_a_bit),
        ("optimizer.safetensors", cut_in_half),
        ("weights.safetensors", Path.unlink),
        ("checkpoint.json", cut_in_half),
        ("checkpoint.json", Path.unlink),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(ended, undisturbed, file, damage: Callable[[Path], None]):
    before, newest = checkpoint_directories(ended)[-2:]
    damage(newest / file)
    again = train(ended)
    assert again[0].kind == "warning"
    assert str(newest) in again[0].message
    assert "is passed over" in again[0].message
    assert again[1].from_step == int(before.name[5:]) == STEPS - 1
    assert again[-1].files == said(undisturbed)[-1].files


def test_a_checkpoint_of_another_plan_or_other_rows_is_refused(ended):
    plan, prepared = Plan.read(ended / "plan.json"), Prepared.read(ended / "data.json")
    other = plan.optimizer.model_copy(update={"learning_rate": 0.5})
    plan.model_copy(update={"optimizer": other}).write(ended / "plan.json")
    with pytest.raises(
        EngineError, match=r"step-000009 belongs to another plan\.json .* delete .* to start anew"
    ) as no:
        train(ended)
    assert no.value.code == "CheckpointError"
    plan.write(ended / "plan.json")
    prepared.model_copy(update={"steps": 7}).write(ended / "data.json")
    with pytest.raises(EngineError, match=r"another data\.json"):
        train(ended)


def test_trackers_and_fields_that_a_newer_version_adds_do_not_make_it_another_plan(run):
    plan = Plan.read(run / "plan.json")
    told = plan.model_copy(update={"trackers": TrackersPart(mlflow=MlflowPart(name="a"))})
    assert digest_of(told, {"trackers"}) == digest_of(plan, {"trackers"}) == digest_of(plan)
    assert digest_of(told) != digest_of(plan)


def test_the_newest_two_checkpoints_are_kept_and_the_best_of_each(make_run, monkeypatch):
    monkeypatch.setenv(pace.VARIABLE, "0")
    run = make_run(data={"split_fraction": 0.2}, optimizer={"learning_rate": 3.0, "warmup_steps": 0})
    best: list[int] = []

    def look(event):
        if event.kind == "validated":
            best.append(event.loss)
        kept = [int(path.name[5:]) for path in checkpoint_directories(run)]
        assert len(kept) <= 4
        if event.kind == "checkpoint" and event.step > 1:
            assert kept[-2:] == [event.step - 1, event.step]

    last = train(run, look)[-1]
    assert best.index(min(best)) == 0, "the test needs a run that gets worse"
    assert f"step-{last.exported_step:06d}" in [path.name for path in checkpoint_directories(run)]


def test_best_weights_that_cannot_be_read_any_more_are_not_exported_in_silence(make_run):
    run = make_run(data={"split_fraction": 0.2}, optimizer={"learning_rate": 3.0, "warmup_steps": 0})
    best = train(run)[-1].exported_step
    assert best < 6
    flip_a_bit(run / f"checkpoints/step-{best:06d}/weights.safetensors")
    again = train(run)
    assert [event.kind for event in again] == ["started", "warning", "finished"]
    assert (again[-1].exported_step, again[-1].reason) == (6, "last")


def test_a_full_disk_is_told_with_path_needed_and_free_bytes(run, monkeypatch):
    """Seen before anything is written; the last complete checkpoint stays."""
    monkeypatch.setenv(pace.VARIABLE, "0")
    real = disk.shutil.disk_usage

    def full(path):
        return real(path)._replace(free=1234) if (run / "checkpoints/step-000003").exists() else real(path)

    monkeypatch.setattr(disk.shutil, "disk_usage", full)
    with pytest.raises(EngineError) as no:
        train(run)
    assert no.value.code == "CheckpointError"
    assert no.value.message == (
        f"{run}/checkpoints/step-000004 could not be written: No space left on device. It needs 1,097,732 bytes, "
        "1,234 are free. The last complete checkpoint stays"
    )
    assert [path.name for path in checkpoint_directories(run)][-1] == "step-000003"
    monkeypatch.undo()
    assert train(run)[-1].kind == "finished"


def test_a_write_that_fails_half_way_fails_the_run_with_an_event(run, undisturbed):
    """A limit on the size of a file stands in for the full disk: the kernel refuses the bytes beyond it."""
    assert finish(run, FILE_SIZE_LIMIT="20000") == 1
    last = said(run)[-1]
    assert (last.kind, last.type) == ("failed", "CheckpointError")
    assert "step-000001 could not be written" in last.message
    assert "File too large" in last.message
    assert list((run / "checkpoints").iterdir()) == []
    assert finish(run, attempt=2) == 0
    assert_same_end(run, undisturbed, 2)


@pytest.mark.parametrize(
    ("since", "step", "cost", "due"),
    [
        (10, 1, 0.2, False),
        (59.5, 1, 0.2, True),  # waiting for one more step would put 60.5 s at stake
        (59.5, 1, 3.0, False),  # 3 s in 59.5 are 5%
        (150, 1, 3.0, True),
        (90, 90, 0.2, True),  # a step that takes longer than that is saved by itself
    ],
)
def test_a_minute_of_work_is_at_stake_and_two_per_cent_of_the_time_is_spent(since, step, cost, due):
    assert pace.due(since, step, cost, pace.LOST_SECONDS) is due
