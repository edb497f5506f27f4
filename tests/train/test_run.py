"""Both processes for real: rows in, an adapter with digests out, the whole story in the events."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from tests.train.runs import finish, said
from tunesmith.handoff.events import read_events


def execute(run, room):
    """As the launcher does it. For one run only: a cold process spends 10 CPU-seconds on imports."""
    return subprocess.run(
        [sys.executable, "-m", f"tunesmith.{room}", str(run)], check=False, capture_output=True, text=True, timeout=120
    )


def cold(run):
    done = execute(run, "train")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def forked(run):
    assert finish(run, TUNESMITH_CHECKPOINT_SECONDS="60") == 0


@pytest.mark.parametrize(
    ("compute", "attention", "train"), [("fp32", "eager", forked), ("bf16", "sdpa", forked), ("bf16", "sdpa", cold)]
)
def test_a_run_from_files_to_artifact(make_run, compute, attention, train):
    run = make_run(prepared=False, model={"compute": compute, "attention": attention}, data={"split_fraction": 0.1})
    prepared = execute(run, "data")
    assert (prepared.returncode, prepared.stdout) == (0, ""), prepared.stderr
    train(run)
    events = [event for event in read_events(run / "events.1.jsonl", 0)[0] if event.kind != "warning"]
    kinds = [event.kind for event in events]
    assert kinds[:4] == ["preparing", "preparing", "prepared", "started"]
    assert [kind for kind in kinds[4:] if kind != "progress"] == [
        *("validated", "checkpoint", "sampled"),
        *("validated", "checkpoint", "sampled"),
        "finished",
    ]
    assert [event.step for event in events if event.kind == "progress"] == [1, 2, 3, 4, 5, 6]
    assert events[3].compute == compute
    assert events[3].adapted_modules == 14
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors", "provenance.json", "tunesmith_probe.json"]
    assert [file.path for file in events[-1].files] == names
    for file in events[-1].files:
        path = run / "artifact" / file.path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.digest
        assert path.stat().st_size == file.size
        assert path.stat().st_mode & 0o777 == 0o444
    if train is cold:  # a forked process gives the same bytes, so it is fair to test with those
        twin = make_run("twin", model={"compute": compute, "attention": attention}, data={"split_fraction": 0.1})
        forked(twin)
        assert said(twin)[-1].files == events[-1].files


def test_a_run_that_cannot_start_ends_with_a_failed_event(make_run):
    run = make_run(adapter={"modules": ("model.layers.0.self_attn.z_proj",)})
    assert finish(run, attempt=3) == 1
    last = said(run, 3)[-1]
    assert (last.kind, last.type) == ("failed", "TrainingConfigError")
    assert last.message == "adapter.modules: the model has no module model.layers.0.self_attn.z_proj"


def test_rows_that_were_cut_are_told(make_run):
    run = make_run(data={"sequence_limit": 12})
    assert finish(run) == 0
    warning = said(run)[0]
    assert warning.kind == "warning"
    assert "rows were cut to 12 tokens; raise max_seq_length to keep them" in warning.message
