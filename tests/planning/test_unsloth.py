"""Decisions of the unsloth dialect, by worked examples."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from tests.planning.knobs import TWO_LAYERS, UNSLOTH, with_leaf
from tunesmith.data.schedule import total_steps, validation_steps
from tunesmith.errors import Invalid, NotBuilt
from tunesmith.handoff.plan import EachEpoch, Epochs, EverySteps
from tunesmith.planning.submission import Lowered, Result, Written
from tunesmith.planning.unsloth import canonical, lower, named, needs, result
from tunesmith.spec.unsloth import UnslothJobInput


def asked(**changes: Any) -> UnslothJobInput:
    """The base of the knob tests, with dotted paths (`schedule__epochs`) replaced."""
    spec = UNSLOTH.base
    for path, value in changes.items():
        spec = with_leaf(spec, path.replace("__", "."), value)
    return UnslothJobInput.model_validate(spec)


def lowered(**changes: Any) -> Lowered:
    return lower(asked(**changes), TWO_LAYERS, run="r", model="default/base")


def test_defaults_are_the_dialects_own() -> None:
    plan = lowered(schedule__epochs=1, training={"lora": {"target_modules": ["q_proj"]}}).plan
    assert (plan.adapter.rank, plan.adapter.alpha, plan.adapter.dropout) == (16, 16, 0.0)
    assert (plan.optimizer.name, plan.optimizer.learning_rate, plan.optimizer.weight_decay) == ("adamw", 2e-4, 0.0)
    assert (plan.optimizer.decay, plan.optimizer.max_grad_norm, plan.optimizer.min_learning_rate) == ("linear", 1, 0)
    assert (plan.schedule.rows_per_step, plan.schedule.seed, plan.schedule.stop) == (1, 3407, Epochs(epochs=1))
    assert (plan.model.compute, plan.model.attention, plan.data.sequence_limit) == ("bf16", "sdpa", 2048)
    assert (plan.model.recompute, plan.schedule.save_at, plan.schedule.log_every) == ("offloaded", EachEpoch(), 1)
    assert (plan.result.form, plan.result.step) == ("adapter", "last")


def test_what_is_asked_by_default_is_refused_with_the_settings_that_run_today() -> None:
    spec = UnslothJobInput.model_validate({"model": {"name": "base"}, "dataset": {"path": "rows"}})
    linears = [replace(TWO_LAYERS.linears[0], name=f"layers.0.{name}") for name in spec.training.lora.target_modules]
    facts = replace(TWO_LAYERS, linears=tuple(linears))
    with pytest.raises(
        NotBuilt, match=r"^model.load_in_4bit: true is not built yet; use false\. optimizer.optim:"
    ) as no:
        lower(spec, facts, run="r", model="default/base")
    sets = re.findall(r"--set ([\w.]+)=(\S+)", no.value.message)
    assert sets == [("model.load_in_4bit", "false"), ("optimizer.optim", "adamw_torch")]
    said = {"model": {"name": "base", "load_in_4bit": False}, "optimizer": {"optim": "adamw_torch"}}
    runs = UnslothJobInput.model_validate({**said, "dataset": {"path": "rows"}})
    assert lower(runs, facts, run="r", model="default/base").warnings == ()


@pytest.mark.parametrize(("rows", "per_step"), [(1, 1), (5, 2), (100, 8)])
def test_max_steps_are_made_exactly_whatever_the_rows(rows: int, per_step: int) -> None:
    stop = lowered(schedule__max_steps=7).plan.schedule.stop
    assert total_steps(stop, -(-rows // per_step)) == 7


def test_epochs_beside_max_steps_are_said_to_have_no_meaning() -> None:
    assert lowered(schedule__max_steps=7).warnings == (
        "schedule.epochs: has no meaning beside schedule.max_steps, which decides, and is not used",
    )


def test_a_step_is_device_batch_times_accumulation_and_a_pass_is_the_device_batch() -> None:
    plan = lowered(batch__per_device_train_batch_size=4, batch__gradient_accumulation_steps=3).plan
    assert (plan.schedule.rows_per_step, plan.schedule.tokens_per_pass) == (12, 4 * 2048)


@pytest.mark.parametrize(
    ("field", "part", "value"),
    [
        ("schedule__logging_steps", ("schedule", "log_every"), 5),
        ("schedule__save_steps", ("schedule", "save_at"), EverySteps(steps=5)),
        ("schedule__eval_steps", ("schedule", "validate_at"), EverySteps(steps=5)),
        ("optimizer__label_smoothing_factor", ("objective", "label_smoothing"), 5 / 8),
        ("optimizer__neftune_noise_alpha", ("objective", "embedding_noise"), 5),
        ("dataset__packing", ("data", "packing"), True),
    ],
)
def test_a_field_stands_in_its_place_of_the_plan(field: str, part: tuple[str, str], value: Any) -> None:
    given = value.steps if isinstance(value, EverySteps) else value
    done = lowered(**{field: given})
    assert getattr(getattr(done.plan, part[0]), part[1]) == value
    assert done.warnings == ()


@pytest.mark.parametrize(("given", "kind"), [("unsloth", "offloaded"), ("true", "layers"), ("false", "no")])
def test_activations_are_computed_again_as_asked(given: str, kind: str) -> None:
    assert lowered(training__use_gradient_checkpointing=given).plan.model.recompute == kind


def test_sgd_has_no_use_for_the_numbers_of_adam_and_says_so() -> None:
    done = lowered(optimizer={"optim": "sgd", "adam_beta1": 0.5})
    assert done.plan.optimizer.name == "sgd"
    assert done.warnings == ("optimizer.adam_beta1: has no meaning for optim 'sgd' and is not used",)
    assert lowered(optimizer__optim="adamw_torch_fused").plan == lowered().plan


FULL = {"finetuning_type": "all_weights"}


@pytest.mark.parametrize(
    ("changes", "form", "dtype"),
    [
        ({"output": {"save_method": "merged_16bit"}}, "model", "bfloat16"),
        ({"output": {"save_method": "merged_16bit"}, "hardware__precision": "fp16"}, "model", "float16"),
        ({"output": {"save_method": "merged_16bit"}, "model__dtype": "float16"}, "model", "float16"),
        ({"training": FULL}, "model", "bfloat16"),
        ({"training": FULL, "hardware__precision": "fp16"}, "model", "float16"),
        ({"training": FULL, "model__dtype": "float32"}, "model", "float32"),
    ],
)
def test_a_model_is_stored_as_asked_else_as_it_computes(changes: dict[str, Any], form: str, dtype: str) -> None:
    done = lowered(**changes)
    assert (done.plan.result.form, done.plan.result.dtype, done.warnings) == (form, dtype, ())
    assert (done.plan.adapter is None) == ("training" in changes)
    assert done.plan.model.compute == changes.get("hardware__precision", "bf16")


def test_a_type_for_an_adapters_base_has_no_meaning_and_that_is_said() -> None:
    (said,) = lowered(model__dtype="float32").warnings
    assert said.startswith("model.dtype: 'float32' has no meaning for an adapter and is not used")
    assert lowered(model__dtype="bfloat16").warnings == ()


def test_sixteen_bits_are_not_thirty_two() -> None:
    with pytest.raises(ValidationError, match=r"stores 16 bits a weight, .*: set model.dtype to auto, bfloat16 or fl"):
        asked(model__dtype="float32", output={"save_method": "merged_16bit"})


def test_no_row_is_held_back_and_the_last_step_is_the_only_one_measured() -> None:
    data, schedule = lowered().plan.data, lowered().plan.schedule
    assert (data.validation, data.split_fraction) == ("split", 0.0)
    assert validation_steps(schedule.validate_at, 10, 35) == (35,)
    assert lowered(dataset__validation_path="held-out").plan.data.validation == "files"


def test_rows_are_read_as_the_dialect_has_them() -> None:
    data = lowered(dataset__text_field="body").plan.data
    assert (data.text_field, data.conversations, data.columns) == ("body", False, False)
    assert lowered(dataset__apply_chat_template=True).plan.data.conversations


@pytest.mark.parametrize(
    ("changes", "decay", "warm_up"),
    [
        ({"warmup_steps": 3}, "linear", (3, 0)),
        ({"warmup_ratio": 0.25, "max_steps": 10}, "linear", (0, 0.25)),
        ({"warmup_ratio": 0.25}, "linear", (0, 0.25)),
        ({"warmup_ratio": 0}, "linear", (0, 0)),
        ({"warmup_steps": 3, "lr_scheduler_type": "cosine"}, "cosine", (3, 0)),
        ({"warmup_steps": 3, "lr_scheduler_type": "constant_with_warmup"}, "constant", (3, 0)),
        ({"warmup_steps": 3, "lr_scheduler_type": "constant"}, "constant", (0, 0)),
        ({"warmup_ratio": 0.25, "lr_scheduler_type": "constant"}, "constant", (0, 0)),
    ],
)
def test_warm_up_and_decay_follow_the_scheduler_type(
    changes: dict[str, Any], decay: str, warm_up: tuple[int, float]
) -> None:
    optimizer = lowered(schedule=changes).plan.optimizer
    assert (optimizer.decay, (optimizer.warmup_steps, optimizer.warmup_ratio)) == (decay, warm_up)


@pytest.mark.parametrize(("given", "cycles"), [(None, 1), ({}, 1), ({"num_cycles": 3}, 3)])
def test_a_cosine_with_restarts_falls_as_often_as_asked(given: Any, cycles: int) -> None:
    schedule = {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": given}
    optimizer = lowered(schedule=schedule).plan.optimizer
    assert (optimizer.decay, optimizer.cycles) == ("cosine", cycles)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("linear", {"num_cycles": 2}, "'linear' takes no arguments; leave them out, or set it to cosine_with_restarts"),
        ("cosine_with_restarts", {"power": 2}, "takes num_cycles only, not power"),
        ("cosine_with_restarts", {"num_cycles": 0}, r"num_cycles \(0\) must be a whole number from 1 up"),
        ("cosine_with_restarts", {"num_cycles": 1.5}, r"num_cycles \(1.5\) must be a whole number"),
        ("cosine_with_restarts", {"num_cycles": True}, r"num_cycles \(True\) must be a whole number"),
    ],
)
def test_arguments_of_a_curve_that_it_does_not_take_are_refused(kind: str, given: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        asked(schedule={"lr_scheduler_type": kind, "lr_scheduler_kwargs": given})


def test_a_constant_rate_has_no_warm_up_and_says_so() -> None:
    (said,) = lowered(schedule__warmup_steps=3, schedule__lr_scheduler_type="constant").warnings
    assert said.startswith("schedule.warmup_steps: has no meaning for lr_scheduler_type 'constant'")


def test_a_norm_of_zero_clips_nothing() -> None:
    assert lowered(optimizer__max_grad_norm=0).plan.optimizer.max_grad_norm > 1e300


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output__save_method": "merged_4bit"}, "output.save_method: merged_4bit .* use lora or merged_16bit"),
        (
            {"training__lora__init_lora_weights": "loftq"},
            "init_lora_weights: loftq is not built yet; use true or false",
        ),
        ({"model__load_in_8bit": True}, "model.load_in_8bit: true is not built yet; use false"),
        ({"optimizer__optim": "paged_adamw_8bit"}, "optim: paged_adamw_8bit is not built yet; use adamw_torch or"),
        ({"model__rope_scaling": {"factor": 2}}, "model.rope_scaling: a value is not built yet; use null"),
    ],
)
def test_what_the_engine_cannot_do_yet_is_refused_with_the_way_out(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NotBuilt, match=message):
        lowered(**changes)


def test_the_adapter_has_a_seed_of_its_own() -> None:
    plan = lowered(schedule__seed=5).plan
    assert (plan.schedule.seed, plan.data.seed, plan.adapter.seed) == (5, 5, 3407)


def test_embedding_models_and_rerankers_are_refused() -> None:
    for kind, message in (("is_embedding", "Embedding-model SFT is not supported"), ("is_reranker", "scores texts")):
        with pytest.raises(Invalid, match=message) as refusal:
            lower(asked(), replace(TWO_LAYERS, **{kind: True}), run="r", model="default/base")
        assert not isinstance(refusal.value, NotBuilt)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Result(None, None, "adapter", "lora")),
        ({"output": {"name": "out", "description": "mine"}}, Result("out", "mine", "adapter", "lora")),
        ({"output": {"save_method": "merged_4bit"}}, Result(None, None, "model", "lora_merged")),
        ({"training": {"finetuning_type": "all_weights"}}, Result(None, None, "model", "all_weights")),
    ],
)
def test_what_a_job_makes_follows_from_what_it_trains(changes: dict[str, Any], expected: Result) -> None:
    spec = asked(**changes)
    assert result(spec) == expected
    shown = canonical(spec, "out")
    assert (shown.output.name, shown.output.fileset, shown.output.type) == ("out", "out", expected.kind)
    assert result(shown) == replace(expected, name="out")


@pytest.mark.parametrize(
    ("gpus", "names"), [(None, ()), ("", ()), ("0", ("0",)), ("0,1", ("0", "1")), (" 2, 02 ,3", ("2", "3"))]
)
def test_named_gpus_are_a_choice_of_one(gpus: str | None, names: tuple[str, ...]) -> None:
    need = needs(asked(hardware__gpus=gpus))
    assert (need.devices, need.named) == (1, names)


def test_names_are_given_with_their_fields() -> None:
    found = named(asked(dataset__validation_path="ws/held-out"))
    assert found.model == Written("base", "spec.model.name")
    assert found.training == Written("rows", "spec.dataset.path")
    assert found.validation == Written("ws/held-out", "spec.dataset.validation_path")
