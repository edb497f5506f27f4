"""The rl dialect: all rules speak first, then the method is refused as not built."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.planning.knobs import DPO, FACTS, GRPO, Regime, with_leaf
from tunesmith.errors import Invalid, NotBuilt
from tunesmith.planning.rl import canonical, lower, named, needs, result
from tunesmith.planning.submission import Needs, Result, Written
from tunesmith.spec.rl import RlJobInput


def asked(regime: Regime = DPO, **changes: Any) -> RlJobInput:
    spec = regime.base
    for path, value in changes.items():
        spec = with_leaf(spec, path.replace("__", "."), value)
    return RlJobInput.model_validate(spec)


@pytest.mark.parametrize("regime", [DPO, GRPO], ids=["dpo", "grpo"])
def test_a_method_without_a_recipe_is_not_built_yet_and_there_is_an_alternative(regime: Regime) -> None:
    method = regime.base["training"]["type"]
    with pytest.raises(NotBuilt, match=f"^training.type: {method} is not built yet; use automodel"):
        lower(asked(regime), FACTS, run="r", model="default/base")


@pytest.mark.parametrize(
    ("changes", "facts", "message"),
    [
        ({}, {"is_reranker": True}, "scores texts"),
        ({}, {"is_embedding": True}, "embedding model, .* no answers that could be preferred"),
        ({}, {"quantization": "gptq"}, "all_weights cannot be trained on default/base"),
        ({"training__finetuning_type": "lora", "training__lora": {"target_modules": ["w"]}}, {}, "'w' matches no lin"),
        ({"training__parallelism__num_gpus_per_node": 4}, {}, "4 devices are more than this machine, which has 2"),
    ],
)
def test_every_rule_comes_before_not_built(changes: dict[str, Any], facts: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message) as refusal:
        lower(asked(**changes), replace(FACTS, **facts), run="r", model="default/base", devices_here=2)
    assert not isinstance(refusal.value, NotBuilt)


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({}, Result(None, None, "model", "all_weights")),
        ({"finetuning_type": "lora"}, Result(None, None, "adapter", "lora")),
        ({"finetuning_type": "lora", "lora": {"merge": True}}, Result(None, None, "model", "lora_merged")),
        ({"finetuning_type": "lora_merged"}, Result(None, None, "model", "lora_merged")),
    ],
)
def test_what_a_job_makes_follows_from_what_it_trains(training: dict[str, Any], expected: Result) -> None:
    spec = asked(training=training)
    assert result(spec) == expected
    assert canonical(spec, "out").output.type == expected.kind


def test_devices_nodes_and_profile_are_told_to_the_scheduler() -> None:
    spread = {"num_nodes": 2, "num_gpus_per_node": 4}
    spec = asked(training__parallelism=spread, training__execution_profile="big")
    assert needs(spec) == Needs(8, 2, profile="big")


def test_names_are_given_with_their_fields() -> None:
    assert named(asked()).model == Written("base", "spec.model")
    assert named(asked()).training == Written("rows", "spec.dataset")
