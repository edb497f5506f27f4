"""Decisions of the unsloth dialect, by worked examples."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from tests.planning.knobs import TWO_LAYERS, UNSLOTH, with_leaf
from tunesmith.data.schedule import total_steps, validation_steps
from tunesmith.errors import Invalid, NotBuilt
from tunesmith.handoff.plan import Epochs
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
    plan = lowered(schedule__epochs=1).plan
    assert (plan.adapter.rank, plan.adapter.alpha, plan.adapter.dropout) == (16, 16, 0.0)
    assert (plan.optimizer.name, plan.optimizer.learning_rate, plan.optimizer.weight_decay) == ("adamw", 2e-4, 0.0)
    assert (plan.optimizer.decay, plan.optimizer.max_grad_norm, plan.optimizer.min_learning_rate) == ("linear", 1, 0)
    assert (plan.schedule.rows_per_step, plan.schedule.seed, plan.schedule.stop) == (1, 3407, Epochs(epochs=1))
    assert (plan.model.compute, plan.model.attention, plan.data.sequence_limit) == ("bf16", "sdpa", 2048)


def test_what_is_asked_by_default_is_refused_with_the_settings_that_run_today() -> None:
    spec = UnslothJobInput.model_validate({"model": {"name": "base"}, "dataset": {"path": "rows"}})
    linears = [replace(TWO_LAYERS.linears[0], name=f"layers.0.{name}") for name in spec.training.lora.target_modules]  # type: ignore[union-attr]
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
    ("changes", "decay", "steps"),
    [
        ({"schedule__warmup_steps": 3}, "linear", 3),
        ({"schedule__warmup_ratio": 0.25, "schedule__max_steps": 10}, "linear", 3),
        ({"schedule__warmup_ratio": 0}, "linear", 0),
        ({"schedule__warmup_steps": 3, "schedule__lr_scheduler_type": "cosine"}, "cosine", 3),
        ({"schedule__warmup_steps": 3, "schedule__lr_scheduler_type": "constant_with_warmup"}, "constant", 3),
        ({"schedule__warmup_steps": 3, "schedule__lr_scheduler_type": "constant"}, "constant", 0),
    ],
)
def test_warm_up_and_decay_follow_the_scheduler_type(changes: dict[str, Any], decay: str, steps: int) -> None:
    optimizer = lowered(**changes).plan.optimizer
    assert (optimizer.decay, optimizer.warmup_steps) == (decay, steps)


def test_a_constant_rate_has_no_warm_up_and_says_so() -> None:
    (said,) = lowered(schedule__warmup_steps=3, schedule__lr_scheduler_type="constant").warnings
    assert said.startswith("schedule.warmup_steps: has no meaning for lr_scheduler_type 'constant'")


def test_a_norm_of_zero_clips_nothing() -> None:
    assert lowered(optimizer__max_grad_norm=0).plan.optimizer.max_grad_norm > 1e300


@pytest.mark.parametrize(
    ("layers", "names"), [(1, ["layers.1.q_proj", "layers.1.up_proj"]), ([0], ["layers.0.q_proj", "layers.0.up_proj"])]
)
def test_layers_to_transform_choose_among_the_modules(layers: Any, names: list[str]) -> None:
    assert list(lowered(training__lora__layers_to_transform=layers).plan.adapter.modules) == names


@pytest.mark.parametrize("layers", [2, [0, 5], -1, []])
def test_layers_that_the_model_has_not_are_refused(layers: Any) -> None:
    with pytest.raises(Invalid, match=r"training.lora.layers_to_transform \(.*\): must name layers .* are 0 to 1"):
        lowered(training__lora__layers_to_transform=layers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"schedule__seed": 5},
            r"random_state \(3407\) apart from schedule.seed \(5\) .* --set training.lora.random_st",
        ),
        ({"schedule__warmup_ratio": 0.1}, r"schedule.warmup_ratio: 0.1 of a number of steps that only the rows tell"),
        ({"schedule__eval_steps": 10}, "schedule.eval_steps: 10 is not built yet; use null"),
        ({"output__save_method": "merged_16bit"}, "output.save_method: merged_16bit is not built yet; use lora"),
        ({"hardware__precision": "fp16"}, "hardware.precision: fp16 is not built yet; use bf16"),
    ],
)
def test_what_the_engine_cannot_do_yet_is_refused_with_the_way_out(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NotBuilt, match=message):
        lowered(**changes)


def test_one_number_for_both_seeds_runs() -> None:
    assert lowered(schedule__seed=5, training__lora__random_state=5).plan.schedule.seed == 5


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
