"""The arithmetic of devices, experts and pairs of models, by published and worked examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from tests.planning.knobs import BASE, FACTS
from tunesmith.api.models import MoeConfig
from tunesmith.errors import Invalid, NotBuilt
from tunesmith.planning.automodel import lower, warnings
from tunesmith.spec.automodel import AutomodelJobInput, Parallelism

EIGHT_EXPERTS = replace(FACTS, moe=MoeConfig(num_experts=8, num_experts_per_tok=2, num_expert_layers=1))


def asked(**sections: Any) -> AutomodelJobInput:
    return AutomodelJobInput.model_validate({**BASE, **sections})


@pytest.mark.parametrize(
    ("gpus", "tensor", "pipeline", "replicas"), [(8, 4, 2, 1), (8, 2, 1, 4), (8, 1, 1, 8), (1, 1, 1, 1)]
)
def test_replicas_are_what_the_degrees_leave_of_the_devices(
    gpus: int, tensor: int, pipeline: int, replicas: int
) -> None:
    spread = Parallelism(num_gpus_per_node=gpus, tensor_parallel_size=tensor, pipeline_parallel_size=pipeline)
    assert spread.data_parallel_size == replicas


def test_four_devices_cannot_be_split_by_four_and_by_two() -> None:
    with pytest.raises(
        ValidationError, match=r"Total GPUs \(4\) must be divisible by .* = 8: use 8 GPUs or a multiple"
    ):
        Parallelism(num_gpus_per_node=4, tensor_parallel_size=4, pipeline_parallel_size=2)


@pytest.mark.parametrize("experts", [1, 2, 4])
def test_experts_are_shared_where_both_their_number_and_the_replicas_divide(experts: int) -> None:
    spread = {"num_gpus_per_node": 8, "tensor_parallel_size": 2 if experts == 1 else 1, "context_parallel_size": 2}
    with pytest.raises(NotBuilt, match=r"parallelism.num_gpus_per_node: 8 is not built yet"):
        lower(asked(parallelism={**spread, "expert_parallel_size": experts}), EIGHT_EXPERTS, run="r", model="a/b")


@pytest.mark.parametrize(
    ("spread", "experts", "message"),
    [
        (
            {"num_gpus_per_node": 4, "expert_parallel_size": 3},
            8,
            r"\(3\) must divide .* experts \(8\): 1, 2 or 4 would",
        ),
        (
            {"num_gpus_per_node": 4, "expert_parallel_size": 3},
            6,
            r"\(4\) must be divisible by .*\(3\): 1 or 2 would do",
        ),
        (
            {"num_gpus_per_node": 4, "expert_parallel_size": 8},
            8,
            r"\(data_parallel_size \* .*\) \(4\) must be divisible",
        ),
        (
            {"num_gpus_per_node": 8, "tensor_parallel_size": 2, "expert_parallel_size": 4},
            8,
            r"tensor_parallel_size \(2\): Tensor parallelism is not supported for MoE .* \(it is 4\): set tensor_par",
        ),
    ],
)
def test_experts_that_cannot_be_shared_out_are_refused(spread: dict[str, int], experts: int, message: str) -> None:
    facts = replace(FACTS, moe=MoeConfig(num_experts=experts, num_experts_per_tok=2, num_expert_layers=1))
    with pytest.raises(Invalid, match=message):
        lower(asked(parallelism=spread), facts, run="r", model="a/b")


def test_a_dense_model_has_no_experts_to_share_and_the_answer_says_so() -> None:
    spec = asked(parallelism={"expert_parallel_size": 3})
    (said,) = lower(spec, FACTS, run="r", model="a/b").warnings
    assert said.startswith("parallelism.expert_parallel_size: has no meaning for a model without experts")
    assert warnings(spec, EIGHT_EXPERTS) == []


@pytest.mark.parametrize(("here", "has"), [(1, "has 1"), (0, "has none")])
def test_more_devices_than_the_machine_has_are_refused_before_anything_unbuilt(here: int, has: str) -> None:
    spec = asked(parallelism={"num_nodes": 2, "num_gpus_per_node": 4})
    with pytest.raises(Invalid, match=f"num_nodes: 8 devices are more than this machine, which {has}") as refusal:
        lower(spec, FACTS, run="r", model="a/b", devices_here=here)
    assert not isinstance(refusal.value, NotBuilt)


def test_sixteen_devices_need_a_batch_of_sixteen() -> None:
    with pytest.raises(
        ValidationError, match=r"global_batch_size \(8\) .* data_parallel_size \(16\) = 16: 16 would do"
    ):
        asked(parallelism={"num_nodes": 2, "num_gpus_per_node": 8})


DISTILLATION = {"training_type": "distillation", "teacher_model": "teacher"}


@pytest.mark.parametrize(
    ("training", "student", "teacher", "message"),
    [
        ({"teacher_model": "base"}, {}, {}, "training.teacher_model: 'base' is the model that is trained"),
        ({"teacher_model": "default/base"}, {}, {}, "'default/base' is the model that is trained"),
        ({}, {}, {"vocab_size": 11}, "the vocabulary of teacher has 11 tokens, that of default/base 10; .* one family"),
        ({}, {"start_ids": (1,)}, {"start_ids": (2,)}, "bos_token_id of teacher is 2, that of default/base 1"),
        ({}, {"end_ids": (1,)}, {"end_ids": (2, 3)}, "eos_token_id of teacher is 2 or 3, that of default/base 1"),
        ({}, {}, {"is_reranker": True}, "training.teacher_model: teacher .* scores texts"),
        ({}, {}, {"is_embedding": True}, "training.teacher_model: teacher .* no answers that could be imitated"),
    ],
)
def test_models_that_cannot_teach_each_other_are_refused(
    training: dict[str, Any], student: dict[str, Any], teacher: dict[str, Any], message: str
) -> None:
    spec = asked(training={**DISTILLATION, **training})
    with pytest.raises(Invalid, match=message) as refusal:
        lower(spec, replace(FACTS, **student), run="r", model="default/base", teacher=replace(FACTS, **teacher))
    assert not isinstance(refusal.value, NotBuilt)


def test_a_lawful_pair_is_not_built_yet() -> None:
    student, teacher = replace(FACTS, end_ids=(1, 2)), replace(FACTS, end_ids=(2, 3))
    with pytest.raises(NotBuilt, match=r"training.training_type: distillation is not built yet; use sft"):
        lower(asked(training=DISTILLATION), student, run="r", model="default/base", teacher=teacher)


def test_what_belongs_to_another_method_is_named_only_there() -> None:
    spec = asked(training={**DISTILLATION, "distillation_ratio": 0.9, "lora": {}})
    assert warnings(spec, FACTS) == []
    full = asked(training={"finetuning_type": "all_weights", "lora": {"rank": 4}})
    assert warnings(full, FACTS) == ["training.lora: has no meaning for finetuning_type 'all_weights' and is not used"]
    flat = asked(optimizer={"lr_decay_style": "constant", "min_learning_rate": 1e-7})
    assert warnings(flat, FACTS)[0].startswith("optimizer.min_learning_rate: has no meaning for lr_decay_style")
