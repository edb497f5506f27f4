"""Both processes for real: rows in, an adapter with digests out, the whole story in the events."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from tunesmith.handoff.events import read_events


def execute(run, room):
    return subprocess.run(
        [sys.executable, "-m", f"tunesmith.{room}", str(run)], check=False, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(("compute", "attention"), [("fp32", "eager"), ("bf16", "sdpa")])
def test_a_run_from_files_to_artifact(make_run, compute, attention):
    run = make_run(prepared=False, model={"compute": compute, "attention": attention}, data={"split_fraction": 0.1})
    for room in ("data", "train"):
        done = execute(run, room)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    events = read_events(run / "events.1.jsonl", 0)[0]
    kinds = [event.kind for event in events]
    assert kinds[:4] == ["preparing", "preparing", "prepared", "started"]
    assert [kind for kind in kinds[4:] if kind != "progress"] == [
        "validated",
        "checkpoint",
        "validated",
        "checkpoint",
        "finished",
    ]
    assert [event.step for event in events if event.kind == "progress"] == [1, 2, 3, 4, 5, 6]
    assert events[3].compute == compute
    assert events[3].adapted_modules == 14
    names = ["adapter_config.json", "adapter_model.safetensors", "tunesmith_probe.json"]
    assert [file.path for file in events[-1].files] == names
    for file in events[-1].files:
        path = run / "artifact" / file.path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.digest
        assert path.stat().st_size == file.size
        assert path.stat().st_mode & 0o777 == 0o444


def test_a_run_that_cannot_start_ends_with_a_failed_event(make_run, monkeypatch):
    monkeypatch.setenv("TUNESMITH_ATTEMPT", "3")
    run = make_run(adapter={"modules": ("model.layers.0.self_attn.z_proj",)})
    done = execute(run, "train")
    assert (done.returncode, done.stdout) == (1, "")
    last = read_events(run / "events.3.jsonl", 0)[0][-1]
    assert (last.kind, last.type) == ("failed", "TrainingConfigError")
    assert last.message == "adapter.modules: the model has no module model.layers.0.self_attn.z_proj"


def test_rows_that_were_cut_are_told(make_run):
    run = make_run(data={"sequence_limit": 12})
    assert execute(run, "train").returncode == 0
    warning = read_events(run / "events.1.jsonl", 0)[0][0]
    assert warning.kind == "warning"
    assert "rows were cut to 12 tokens; raise max_seq_length to keep them" in warning.message
