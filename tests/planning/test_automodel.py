"""Decisions of the automodel dialect, by worked examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from tests.planning.knobs import BASE, FACTS, changed
from tunesmith.errors import Invalid, NotBuilt
from tunesmith.handoff.capabilities import TRAINED_FAMILIES, TrainedFamily
from tunesmith.handoff.plan import EachEpoch, Epochs, EverySteps, FirstOf, FractionOfEpoch
from tunesmith.planning import rules
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


@pytest.mark.parametrize(
    ("path", "value", "form", "adapted"),
    [
        ("training.finetuning_type", "lora", "adapter", True),
        ("training.finetuning_type", "lora_merged", "model", True),
        ("training.lora.merge", True, "model", True),
        ("training.finetuning_type", "all_weights", "model", False),
    ],
)
def test_what_is_trained_and_what_comes_of_it(path: str, value: Any, form: str, adapted: bool) -> None:
    plan = lowered(path, value).plan
    assert (plan.result.form, plan.adapter is not None) == (form, adapted)
    assert (plan.result.dtype, plan.result.step, plan.model.recompute) == ("base", "best", "no")


def test_a_model_made_of_a_quantised_one_has_sixteen_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "TRAINABLE_FAMILIES", {"gpt_oss", "llama"})
    monkeypatch.setitem(TRAINED_FAMILIES, "gpt_oss", TrainedFamily("here"))
    facts = replace(FACTS, family="gpt_oss", quantization="mxfp4")
    spec = AutomodelJobInput.model_validate(changed("training.finetuning_type", "lora_merged"))
    assert lower(spec, facts, run="r", model="default/base").plan.result.dtype == "bfloat16"
    with pytest.raises(NotBuilt, match=r"is quantised \(mxfp4\)"):
        lower(spec, replace(facts, family="llama"), run="r", model="default/base")


def test_rows_are_packed_where_asked_and_a_window_counts() -> None:
    spec = AutomodelJobInput.model_validate(
        changed("batch", {"sequence_packing": True, "sequence_packing_max_samples": 7})
    )
    done = lower(spec, FACTS, run="r", model="default/base")
    assert (done.plan.data.packing, done.plan.data.pack_window, done.warnings) == (True, 7, ())


def test_packing_is_off_with_a_warning_where_rows_would_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAINED_FAMILIES, "llama", TrainedFamily("here", packs=False))
    done = lowered("batch.sequence_packing", True)
    assert not done.plan.data.packing
    (said,) = done.warnings
    assert said.startswith("batch.sequence_packing: is off: some layers of the family llama carry a state from token")


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
    with pytest.raises(Invalid, match=r"exclude_modules \['\*'\] leaves nothing to train; name fewer exclusions"):
        lowered("training.lora.exclude_modules", ["*"])
    with pytest.raises(Invalid, match=r"target_modules: \[\] leaves nothing to train; name some, such as q_proj"):
        lowered("training.lora.target_modules", [])


def test_a_rank_above_that_of_every_matrix_is_told() -> None:
    assert lowered("training.lora.rank", 4).warnings == ()
    (said,) = lowered("training.lora.rank", 5).warnings
    assert said.startswith("training.lora.rank (5): is above the smaller side of every matrix it adapts (4 at most)")


def test_a_dropout_of_all_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"training.lora.dropout\s+Input should be less than 1"):
        lowered("training.lora.dropout", 1.0)


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
