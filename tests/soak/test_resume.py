"""Thirty kills at random moments: each run goes on and ends with the losses and bytes of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.train.conftest import make_a_run, model_dir  # noqa: F401 - fixtures
from tests.train.runs import finish, said, start
from tests.train.test_resume import HARD, assert_same_end

KILLS = 30
RUN_SECONDS = 2.5
"""About what a whole run takes, imports aside: kills fall into loading, steps, checkpoints, validations and export."""


@pytest.fixture
def begin(make_a_run):  # noqa: F811
    """A prepared run of that name, of adapters or of all weights."""

    def begun(name: str, whole: bool) -> Path:
        return make_a_run(name, **{**HARD, "adapter": None} if whole else HARD)

    return begun


@pytest.mark.parametrize("whole", [False, True], ids=["adapters", "all weights"])
def test_thirty_random_kills_change_nothing(begin, whole, record_property):
    draw = random.Random(7)
    undisturbed = begin(f"undisturbed-{whole}", whole)
    assert finish(undisturbed) == 0
    kills, runs, after = 0, 0, Counter[str]()
    while kills < KILLS:
        runs += 1
        run = begin(f"run{runs}-{whole}", whole)
        for attempt in range(1, 100):
            process = start(run, attempt)
            process.join(draw.uniform(0.2, RUN_SECONDS))
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGKILL)
                process.join(60)
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL, said(run, attempt)[-1]
            kills += 1
            events = said(run, attempt)
            after[events[-1].kind if events else "nothing"] += 1
        assert_same_end(run, undisturbed, attempt)
    assert kills >= KILLS
    record_property("covered", f"{kills} kills in {runs} runs, by the last word: {dict(after)}")
