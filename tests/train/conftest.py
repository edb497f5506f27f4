"""A prepared run with a tiny Llama, for the train room's tests."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
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
    """A run directory with `plan.json`, rows of different lengths and, unless told not to, these prepared.

    `base` is another model, `pairs` are other rows; what else is named changes the plan as `tests.plans.plan` does.
    """
    return partial(_make, tmp_path, model_dir)


@pytest.fixture(scope="module")
def make_a_run(tmp_path_factory, model_dir) -> Callable[..., Path]:
    """The same, for what a module shares."""
    return partial(_make, tmp_path_factory.mktemp("runs"), model_dir)


def drawn_pairs(count: int, least: int, most: int) -> list[list[str]]:
    """Prompts and completions of so many words."""
    draw = random.Random(3)
    return [[" ".join(draw.choices(WORDS, k=draw.randint(least, most))) for _ in range(2)] for _ in range(count)]


def _make(
    directory: Path,
    model_dir: Path,
    name: str = "run",
    *,
    prepared: bool = True,
    base: Path | None = None,
    pairs: Sequence[Sequence[str]] = (),
    **changes,
) -> Path:
    run = directory / name
    (run / "inputs/data").mkdir(parents=True)
    (run / "inputs/model").symlink_to(base or model_dir)
    lines = [json.dumps({"prompt": prompt, "completion": said}) for prompt, said in pairs or drawn_pairs(11, 1, 9)]
    (run / "inputs/data/train.jsonl").write_text("\n".join(lines))
    given = plan(**changes)
    given.write(run / "plan.json")
    if prepared:
        prepare(run, given, lambda event: None)
    return run
