"""Decisions of the automodel dialect, by worked examples."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.planning.knobs import BASE, FACTS, changed
from tunesmith.errors import Invalid
from tunesmith.handoff.plan import EachEpoch, Epochs, EverySteps, FirstOf, FractionOfEpoch
from tunesmith.planning.automodel import Lowered, lower
from tunesmith.spec.automodel import AutomodelJobInput


def lowered(path: str = "model", value: Any = "base") -> Lowered:
    return lower(AutomodelJobInput.model_validate(changed(path, value)), FACTS, run="r", model="default/base")


def test_defaults_are_the_dialects_own() -> None:
    plan = lower(
        AutomodelJobInput.model_validate({"model": "m", "dataset": {"training": "d"}, "training": {}}),
        FACTS,
        run="r",
        model="default/base",
    ).plan
    assert (plan.adapter.rank, plan.adapter.alpha, plan.adapter.dropout) == (16, 32, 0.0)
    assert (plan.optimizer.name, plan.optimizer.learning_rate, plan.optimizer.weight_decay) == ("adam", 5e-6, 0.01)
    assert (plan.schedule.rows_per_step, plan.schedule.seed, plan.schedule.stop) == (8, 1111, Epochs(epochs=1))
    assert (plan.data.sequence_limit, plan.schedule.tokens_per_pass) == (2048, 2048)
    assert plan.adapter.modules == ("layers.0.q_proj", "layers.0.up_proj")


def test_a_cap_on_steps_stops_what_epochs_would_not() -> None:
    assert lowered("schedule.max_steps", 7).plan.schedule.stop == FirstOf(epochs=3, steps=7)


@pytest.mark.parametrize(
    ("interval", "cadence"),
    [
        (None, EachEpoch()),
        (0, EachEpoch()),
        (0.25, FractionOfEpoch(fraction=0.25)),
        (1, FractionOfEpoch(fraction=1)),
        (5, EverySteps(steps=5)),
    ],
)
def test_the_validation_interval_is_an_epoch_a_part_of_one_or_steps(interval: float | None, cadence: object) -> None:
    assert lowered("schedule.val_check_interval", interval).plan.schedule.validate_at == cadence


def test_a_sequence_is_never_longer_than_the_models_context_and_a_warning_says_so() -> None:
    long = lowered("training.max_seq_length", 9999)
    assert long.plan.data.sequence_limit == 4096
    assert long.warnings == (
        "training.max_seq_length (9999) is above the model's context (4096); rows are cut at 4096 tokens",
    )


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["q_proj"], ["layers.0.q_proj"]),
        (["layers.0.up_proj"], ["layers.0.up_proj"]),
        (["*proj"], ["layers.0.q_proj", "layers.0.up_proj"]),
        (["layers.0.*"], ["layers.0.q_proj", "layers.0.up_proj"]),
    ],
)
def test_target_patterns_are_names_ends_of_names_or_globs(patterns: list[str], names: list[str]) -> None:
    assert list(lowered("training.lora.target_modules", patterns).plan.adapter.modules) == names


def test_a_pattern_that_matches_nothing_is_refused_with_what_there_is() -> None:
    with pytest.raises(Invalid, match=r"training.lora.target_modules: 'w_q' matches no linear .* q_proj, up_proj"):
        lowered("training.lora.target_modules", ["w_q"])
    with pytest.raises(Invalid, match="leaves nothing to train"):
        lowered("training.lora.exclude_modules", ["*"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch": {"global_batch_size": 10, "micro_batch_size": 4}},
            r"global_batch_size \(10\) must be divisible by micro_batch_size \(4\) \* data.* = 4: 8 or 12 would do",
        ),
        (
            {"parallelism": {"num_nodes": 2, "num_gpus_per_node": 8}},
            r"batch.global_batch_size \(8\) must be divisible by .* data_parallel_size \(16\) = 16: 16 would do",
        ),
        (
            {"parallelism": {"num_gpus_per_node": 8, "tensor_parallel_size": 3}},
            r"Total GPUs \(8\) must be divisible by tensor_parallel_size \(3\) \* pipeline_parallel_size \(1\)",
        ),
        ({"training": {"training_type": "distillation"}}, "teacher_model is required when training_type is distill"),
        ({"output_model": "x"}, "spec.output_model was removed. Use spec.output instead."),
        ({"schedule": {"val_check_interval": 2.5}}, "must be a whole number of steps when it is above 1"),
        ({"optimizer": {"learning_rate": 1e-5, "min_learning_rate": 1e-4}}, "must not be above learning_rate"),
    ],
)
def test_cross_field_rules_name_the_values_and_the_way_out(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AutomodelJobInput.model_validate({**BASE, **changes})


def test_eight_gpus_with_tensor_four_and_pipeline_two_leave_one_replica() -> None:
    spec = AutomodelJobInput.model_validate(
        {
            **BASE,
            "parallelism": {"num_gpus_per_node": 8, "tensor_parallel_size": 4, "pipeline_parallel_size": 2},
        }
    )
    assert spec.parallelism.data_parallel_size == 1
