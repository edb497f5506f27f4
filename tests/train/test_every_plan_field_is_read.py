"""The twin of tests/planning/test_every_knob_counts.py: the engine reads all that a plan says."""

import sys

import pytest

from tests.train.runs import train
from tunesmith.handoff import plan as handed
from tunesmith.handoff.base import Handed
from tunesmith.handoff.plan import EverySteps, FirstOf, FractionOfEpoch

ENGINE = ("tunesmith.data", "tunesmith.model", "tunesmith.train")
ELSEWHERE = {
    "Plan.method": "train/__main__.py picks the recipe by it",
    "Plan.run": "tests/train/test_trackers.py",
    "Plan.trackers": "tests/train/test_trackers.py",
    "Plan.version": "refused by its reader where it is another one: tests/handoff/test_files.py",
}
"""Fields that are not the recipe's, and where they are read."""
PARTS = [
    each
    for each in vars(handed).values()
    if isinstance(each, type) and issubclass(each, Handed) and each.__module__ == handed.__name__
]
FIELDS = {
    f"{part.__name__}.{name}"
    for part in PARTS
    if part.__name__ not in ("TrackersPart", "WandbPart", "MlflowPart")  # tests/train/test_trackers.py
    for name in part.model_fields
    if name != "kind"  # of a cadence and of a stop: its class says it
} - ELSEWHERE.keys()


@pytest.fixture
def read(monkeypatch) -> set[str]:
    """The fields of plans that code of the engine has read so far, as `ModelPart.compute`."""
    found: set[str] = set()

    def recording(self, name):
        if name in type(self).model_fields and sys._getframe(1).f_globals["__name__"].startswith(ENGINE):
            found.add(f"{type(self).__name__}.{name}")
        return object.__getattribute__(self, name)

    monkeypatch.setattr(Handed, "__getattribute__", recording, raising=False)
    return found


def test_every_field_of_a_plan_is_read(make_run, read):
    train(make_run("adapter", schedule={"save_at": EverySteps(steps=2), "log_every": 2}, data={"packing": True}))
    whole = {
        "adapter": None,
        "result": {"dtype": "bfloat16", "step": "last"},
        "schedule": {"stop": FirstOf(epochs=2, steps=3), "validate_at": FractionOfEpoch(fraction=0.5)},
        "data": {"split_fraction": 0.2},
        "optimizer": {"warmup_steps": 0, "warmup_ratio": 0.5},
    }
    train(make_run("whole", **whole))
    beside = {"decomposed": True, "bias": "all", "whole_modules": ("model.norm",), "start": "gaussian"}
    train(make_run("variants", adapter=beside, schedule={"stop": FirstOf(epochs=1, steps=1)}))
    assert FIELDS - read == set()
