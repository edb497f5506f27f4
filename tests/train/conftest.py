"""A prepared run with a tiny Llama, for the train room's tests."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.models import tiny_llama
from tests.plans import plan
from tunesmith.data.prepare import prepare
from tunesmith.train import gauge, samples

WORDS = ["the", "user", "asks", "and", "assistant", "answers", "hello", "world", "how", "are", "you", "today", "system"]


@pytest.fixture(autouse=True)
def short_looks(monkeypatch):
    """What runs beside learning is tested by itself; here each run may do it in a moment."""
    monkeypatch.setattr(samples, "SAID_TOKENS", 4)
    monkeypatch.setattr(gauge, "RATE_SECONDS", 0.001)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    tiny_llama(directory)
    return directory


@pytest.fixture
def make_run(tmp_path, model_dir) -> Callable[..., Path]:
    """A run directory with `plan.json`, 11 rows of different lengths and, unless told not to, its prepared rows."""
    return partial(_make, tmp_path, model_dir)


@pytest.fixture(scope="module")
def make_a_run(tmp_path_factory, model_dir) -> Callable[..., Path]:
    """The same, for what a module shares."""
    return partial(_make, tmp_path_factory.mktemp("runs"), model_dir)


def _make(directory: Path, base: Path, name: str = "run", prepared: bool = True, **changes) -> Path:
    run = directory / name
    (run / "inputs/data").mkdir(parents=True)
    (run / "inputs/model").symlink_to(base)
    draw = random.Random(3)
    lines = []
    for _ in range(11):
        prompt, completion = (" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(2))
        lines.append(json.dumps({"prompt": prompt, "completion": completion}))
    (run / "inputs/data/train.jsonl").write_text("\n".join(lines))
    given = plan(**changes)
    given.write(run / "plan.json")
    if prepared:
        prepare(run, given, lambda event: None)
    return run
