"""Every family learns its rows through the recipe, by adapters and with all weights, as a plain loop would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.families import FAMILIES, as_mxfp4, tiny
from tests.train.runs import by_hand, losses, train
from tunesmith.handoff.capabilities import TRAINED_FAMILIES
from tunesmith.handoff.plan import Epochs
from tunesmith.handoff.prepared import Prepared
from tunesmith.model.load import load_model
from tunesmith.planning.facts import facts

HYBRIDS = {"nemotron_h"}


@pytest.fixture
def run_of(make_run, tmp_path):
    """A prepared run on a tiny model of the family: of adapters on all that can take one, or of all weights."""

    def make(family: str, all_weights: bool = False, **changes) -> Path:
        base = tmp_path / "base"
        tiny(family, base)
        if family == "gpt_oss":
            as_mxfp4(base)
        known = facts(json.loads((base / "config.json").read_text()), None)
        modules = tuple(linear.name for linear in known.linears)
        return make_run(base=base, adapter=None if all_weights else {"modules": modules}, **changes)

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_learns_by_adapters(run_of, family):
    run = run_of(family, schedule={"stop": Epochs(epochs=4)}, optimizer={"warmup_steps": 0})
    seen = losses(train(run))
    assert min(seen[-3:]) < 0.9 * seen[0]
    assert (run / "artifact/adapter_model.safetensors").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights_are_learned_as_a_plain_loop_over_rows_learns_them(run_of, family):
    rate = 0.05
    run = run_of(
        family,
        all_weights=True,
        result={"dtype": "float32"},
        schedule={"stop": Epochs(epochs=2)},
        optimizer={
            "name": "sgd",
            "learning_rate": rate,
            "decay": "constant",
            "warmup_steps": 0,
            "weight_decay": 0.0,
            "max_grad_norm": 1e9,
        },
    )
    expected = _by_hand(run, rate)
    found = losses(train(run))
    assert found == pytest.approx(expected, rel=1e-4)
    assert found[-1] < found[0]


def _by_hand(run: Path, rate: float) -> list[float]:
    """Mean losses of each step: one row at a time through the unmodified model, plain gradient descent."""
    model = load_model(run / "inputs/model", "fp32", "eager", torch.device("cpu")).requires_grad_(True)
    weights, means = list(model.parameters()), []
    for step in range(1, Prepared.read(run / "data.json").steps + 1):
        loss = by_hand(model, run, step)
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            if slope is not None:
                weight.data -= rate * slope
        means.append(float(loss.detach()))
    return means


def test_the_table_claims_the_families_that_are_trained_here():
    assert set(TRAINED_FAMILIES) == set(FAMILIES)
    assert {name for name, family in TRAINED_FAMILIES.items() if not family.packs} == HYBRIDS
