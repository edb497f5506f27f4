"""What a job needs on disk, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.planning.knobs import AUTOMODEL, FACTS, UNSLOTH, with_leaf
from tunesmith.handoff.plan import Plan
from tunesmith.planning.disk import disk_need, trained_parameters

# q_proj is 4 x 4, up_proj 8 x 4; the model has 100 parameters; checkpoints of 12 bytes a trained one.
ADAPTER = 16 * (8 + 12)


def automodel(path: str, value: Any) -> Plan:
    return lowered(AUTOMODEL, with_leaf(AUTOMODEL.base, path, value))


def unsloth(**lora: Any) -> Plan:
    return lowered(UNSLOTH, with_leaf(UNSLOTH.base, "training.lora", {"target_modules": ["q_proj"], **lora}))


def lowered(regime: Any, spec: dict[str, Any]) -> Plan:
    dialect = regime.dialect
    return dialect.lower(dialect.input.model_validate(spec), FACTS, run="r", model="default/base").plan


@pytest.mark.parametrize(
    ("plan", "written"),
    [
        (automodel("training.finetuning_type", "lora"), 4 * 12 * ADAPTER + 4 * ADAPTER),
        (automodel("training.finetuning_type", "lora_merged"), 4 * 12 * ADAPTER + 200),
        (automodel("training.finetuning_type", "all_weights"), 4 * 12 * 100 + 200),
        (unsloth(rank=2), 3 * 12 * 16 + 4 * 16),
        (unsloth(rank=2, init_lora_weights="pissa"), 3 * 12 * 16 + 2 * 4 * 16),
    ],
)
def test_checkpoints_and_output_are_counted_beside_the_inputs(plan: Plan, written: int) -> None:
    need = disk_need(plan, FACTS, base=200, data=10, here=210)
    assert need.total == 200 + written + 2 * 10
    assert need.missing == need.total - 210


def test_a_large_base_needs_room_by_the_rule_of_thumb() -> None:
    lora, full = automodel("model", "base"), automodel("training.finetuning_type", "all_weights")
    assert disk_need(lora, FACTS, base=10**6, data=0, here=10**6).missing == 10**6 // 2
    assert disk_need(full, FACTS, base=10**6, data=0, here=10**6).missing == 2 * 10**6


@pytest.mark.parametrize(
    ("lora", "trained"),
    [
        ({"rank": 2}, 16),
        ({"rank": 2, "use_dora": True}, 16 + 4),
        ({"rank": 2, "bias": "lora_only"}, 16 + 4),
        ({"rank": 2, "modules_to_save": ["norm", "up_proj"]}, 16 + 4 + 32),
    ],
)
def test_all_that_is_trained_counts(lora: dict[str, Any], trained: int) -> None:
    assert trained_parameters(unsloth(**lora), FACTS) == trained


def test_a_model_in_another_type_is_as_large_as_its_parameters_say() -> None:
    spec = with_leaf(with_leaf(UNSLOTH.base, "training", {"finetuning_type": "all_weights"}), "model.dtype", "float32")
    assert disk_need(lowered(UNSLOTH, spec), FACTS, base=200, data=0, here=0).total == 200 + 3 * 12 * 100 + 4 * 100
