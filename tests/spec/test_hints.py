"""A field of another backend is refused with what it is called here."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.spec.test_grammars import LEAST, with_
from tunesmith.spec.grammars import GRAMMARS
from tunesmith.spec.hints import BACKENDS, SAME, hinted, speakers


def said(backend: str, spec: dict[str, Any]) -> dict[str, str]:
    """Field -> message of a spec that is refused."""
    with pytest.raises(ValidationError) as refusal:
        GRAMMARS[backend].model_validate(spec)
    errors = hinted(refusal.value.errors(), backend)
    return {".".join(map(str, error["loc"])): error["msg"] for error in errors}


@pytest.mark.parametrize(
    ("backend", "path", "message"),
    [
        ("automodel", "batch.per_device_train_batch_size", "is unsloth's; here it is batch.micro_batch_size"),
        ("automodel", "batch.gradient_accumulation_steps", "is unsloth's; here it is batch.global_batch_size"),
        ("automodel", "hardware", "is unsloth's; here it is training.precision or parallelism.num_gpus_per_node"),
        ("automodel", "dataset.path", "is unsloth's; here it is dataset.training"),
        ("automodel", "training.batch_size", "is rl's; here it is batch.global_batch_size"),
        ("automodel", "training.lora.use_dora", "is unsloth's, and automodel has nothing like it"),
        ("unsloth", "batch.micro_batch_size", "is automodel's; here it is batch.per_device_train_batch_size"),
        ("unsloth", "training.max_seq_length", "is automodel and rl's; here it is model.max_seq_length"),
        ("unsloth", "parallelism", "is automodel's; here it is hardware.gpus"),
        ("unsloth", "optimizer.adam_eps", "is automodel's; here it is optimizer.adam_epsilon"),
        ("rl", "schedule.epochs", "here it is training.epochs"),
        ("rl", "parallelism", "is automodel's; here it is the fields of training.parallelism"),
        ("automodel", "learning_rate", "stands in another place: here it is optimizer.learning_rate"),
    ],
)
def test_a_field_that_belongs_elsewhere_is_said_to(backend: str, path: str, message: str) -> None:
    spec = with_(LEAST[backend], path, {} if path in ("hardware", "parallelism") else 1)
    assert message in "; ".join(said(backend, spec).values())


@pytest.mark.parametrize(
    ("backend", "other", "field", "message"),
    [
        ("automodel", "unsloth", "model", "unsloth would take; here it is `model: my-model`"),
        ("unsloth", "automodel", "model", "automodel and rl would take; here it is `model: {name: my-model}`"),
        ("automodel", "rl", "dataset", "rl would take; here it is `dataset: {training: my-dataset}`"),
        ("rl", "automodel", "dataset", "automodel and unsloth would take; here it is `dataset: my-dataset`"),
    ],
)
def test_a_section_of_another_shape_is_said_to_be(backend: str, other: str, field: str, message: str) -> None:
    assert message in said(backend, {**LEAST[backend], field: LEAST[other][field]})[field]


def test_what_nobody_knows_keeps_the_grammars_own_words() -> None:
    assert said("automodel", {**LEAST["automodel"], "colour": "red"}) == {"colour": "Extra inputs are not permitted"}


def test_the_way_to_the_spec_is_not_part_of_the_field() -> None:
    (error,) = hinted([{"type": "extra_forbidden", "loc": ("body", "spec", "hardware"), "msg": "?"}], "rl", start=2)
    assert error["msg"].startswith("hardware is unsloth's")


@pytest.mark.parametrize("row", SAME, ids=str)
def test_the_table_names_fields_that_exist(row: tuple[str | None, ...]) -> None:
    for backend, path in zip(BACKENDS, row, strict=True):
        assert path is None or backend in speakers(with_({}, path, "x"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_shows_by_its_keys_which_backend_it_means(backend: str) -> None:
    assert speakers(LEAST[backend]) == [backend]


def test_a_file_that_no_backend_knows_is_nobodys() -> None:
    assert speakers({**LEAST["rl"], "colour": 1}) == []
    assert speakers({"deployment_config": {"additional_envs": {"ANY": "thing"}}}) == list(BACKENDS)
