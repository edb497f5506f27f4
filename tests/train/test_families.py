"""Every family learns its rows through the recipe, by adapters and with all weights, as a plain loop would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.families import FAMILIES, as_mxfp4, tiny
from tests.train.runs import losses, train
from tunesmith.data.order import Order
from tunesmith.data.prepare import prepare
from tunesmith.data.store import Rows
from tunesmith.handoff.capabilities import TRAINED_FAMILIES
from tunesmith.handoff.plan import Epochs, Plan
from tunesmith.handoff.prepared import Prepared
from tunesmith.model.load import load_model
from tunesmith.planning.facts import facts

HYBRIDS = {"nemotron_h"}


@pytest.fixture
def run_of(make_run):
    """A prepared run on a tiny model of the family; without modules, all weights are trained."""

    def make(family: str, all_weights: bool = False, **changes) -> Path:
        run = make_run(name=f"{family}-{all_weights}", prepared=False, **changes)
        base = run / "base"
        tiny(family, base)
        if family == "gpt_oss":
            as_mxfp4(base)
        (run / "inputs/model").unlink()
        (run / "inputs/model").symlink_to(base)
        config = json.loads((base / "config.json").read_text())
        given = Plan.read(run / "plan.json")
        if all_weights:
            given = given.model_copy(update={"adapter": None})
        else:
            modules = tuple(linear.name for linear in facts(config, None).linears)
            given = given.model_copy(update={"adapter": given.adapter.model_copy(update={"modules": modules})})
        given.write(run / "plan.json")
        prepare(run, given, lambda event: None)
        return run

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
        result={"form": "model", "dtype": "float32"},
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
    plan, prepared = Plan.read(run / "plan.json"), Prepared.read(run / "data.json")
    rows, order = Rows(run, prepared.training, prepared.files), Order(run, prepared, plan)
    model = load_model(run / "inputs/model", "fp32", "eager", torch.device("cpu")).requires_grad_(True)
    means = []
    for step in range(1, prepared.steps + 1):
        total, count = torch.zeros(()), 0
        for row in order.rows_of_step(step).tolist():
            ids = torch.from_numpy(rows.ids(row).astype("int64"))[None]
            labels = ids.masked_fill(torch.from_numpy(rows.mask(row).astype(bool))[None].logical_not(), -100)
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
            total = total + torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
            count += int((labels[0, 1:] != -100).sum())
        weights = list(model.parameters())
        for weight, slope in zip(weights, torch.autograd.grad(total / count, weights, allow_unused=True), strict=True):
            if slope is not None:
                weight.data -= rate * slope
        means.append(float(total.detach()) / count)
    return means


def test_the_table_claims_the_families_that_are_trained_here():
    assert set(TRAINED_FAMILIES) == set(FAMILIES)
    assert {name for name, family in TRAINED_FAMILIES.items() if not family.packs} == HYBRIDS
