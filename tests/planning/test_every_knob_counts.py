"""The guarantee: each leaf of the spec, changed, changes the submission, warns, or is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.errors import Invalid, NotBuilt
from tunesmith.handoff.capabilities import CAPABILITIES
from tunesmith.planning.automodel import lower
from tunesmith.planning.facts import Linear, ModelFacts
from tunesmith.spec.automodel import AutomodelJobInput
from tunesmith.spec.base import leaf, leaves

FACTS = ModelFacts(
    checkpoint_model_name="LlamaForCausalLM",
    family="llama",
    num_layers=1,
    hidden_size=4,
    num_attention_heads=2,
    num_kv_heads=2,
    ffn_hidden_size=8,
    vocab_size=10,
    context_size=4096,
    tied_embeddings=True,
    gated_mlp=True,
    parameters=100,
    precision="bfloat16",
    chat_template="{{ messages }}",
    linears=(Linear("layers.0.q_proj", 4, 4), Linear("layers.0.up_proj", 4, 8)),
)

BASE: dict[str, Any] = {
    "model": "base",
    "dataset": {"training": "rows"},
    "training": {"finetuning_type": "lora", "lora": {}},
    "schedule": {"epochs": 3},
    "batch": {"global_batch_size": 8},
}

# A value other than the default for each leaf; several knobs at once where a rule ties them together.
CHANGED: dict[str, Any] = {
    "name": "label",
    "dataset.validation": "held-out",
    "dataset.prompt_template": "{q} {a}",
    "training.training_type": "distillation",
    "training.finetuning_type": "all_weights",
    "training.lora.rank": 4,
    "training.lora.alpha": 5,
    "training.lora.dropout": 0.5,
    "training.lora.merge": True,
    "training.lora.target_modules": ["q_proj"],
    "training.lora.exclude_modules": ["*up*"],
    "training.lora.use_triton": False,
    "training.max_seq_length": 99,
    "training.precision": "fp32",
    "training.attn_implementation": "eager",
    "training.execution_profile": "big",
    "training.teacher_model": "teacher",
    "training.distillation_ratio": 0.1,
    "training.distillation_temperature": 2.0,
    "training.teacher_precision": "fp32",
    "training.offload_teacher": True,
    "schedule.epochs": 2,
    "schedule.max_steps": 7,
    "schedule.val_check_interval": 0.5,
    "schedule.seed": 5,
    "batch.global_batch_size": 16,
    "batch.micro_batch_size": 2,
    "batch.sequence_packing": True,
    "batch.sequence_packing_max_samples": 7,
    "optimizer.learning_rate": 1e-3,
    "optimizer.min_learning_rate": 1e-7,
    "optimizer.weight_decay": 0.5,
    "optimizer.adam_beta1": 0.5,
    "optimizer.adam_beta2": 0.5,
    "optimizer.warmup_steps": 3,
    "optimizer.adam_eps": 1e-3,
    "optimizer.optimizer": "AdamW",
    "optimizer.lr_decay_style": "linear",
    "parallelism.num_nodes": 2,
    "parallelism.num_gpus_per_node": 2,
    "parallelism.tensor_parallel_size": 2,
    "parallelism.pipeline_parallel_size": 2,
    "parallelism.context_parallel_size": 2,
    "parallelism.expert_parallel_size": 1,
    "parallelism.sequence_parallel": True,
    "integrations": {"wandb": {"project": "p"}},
    "deployment_config": {"lora_enabled": True},
}

# Leaves that do not reach the plan, and where they count instead.
COUNTED_ELSEWHERE = {
    "model": "resolved to the base of the run (tests/server/test_job_rules.py)",
    "dataset.training": "resolved to the rows of the run (tests/server/test_job_rules.py)",
    "output": "names the adapter (tests/control/test_job_line.py)",
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """`BASE` with one leaf set."""
    spec: dict[str, Any] = {key: dict(part) if isinstance(part, dict) else part for key, part in BASE.items()}
    *way, last = path.split(".")
    part = spec
    for name in way:
        part[name] = dict(part.get(name) or {})
        part = part[name]
    part[last] = value
    return spec


def outcome(spec: dict[str, Any]) -> Any:
    """What a user can see of a submission: the plan and the warnings, or the refusal."""
    try:
        return lower(AutomodelJobInput.model_validate(spec), FACTS, run="r", model="default/base")
    except (ValueError, Invalid) as error:
        return str(error)


ALL = [path for path, _ in leaves(AutomodelJobInput.model_validate(BASE))]


def test_every_leaf_is_in_the_table() -> None:
    assert set(ALL) == CHANGED.keys() | COUNTED_ELSEWHERE.keys()


@pytest.mark.parametrize("path", sorted(CHANGED))
def test_a_changed_leaf_changes_the_submission(path: str) -> None:
    assert leaf(AutomodelJobInput.model_validate(BASE), path) != CHANGED[path]
    before, after = outcome(BASE), outcome(changed(path, CHANGED[path]))
    assert not isinstance(before, str)
    assert after != before
    if isinstance(after, str):  # a refusal names what was asked for
        assert path.rpartition(".")[2] in after


@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda each: each.field)
def test_what_is_not_built_is_refused_as_such_and_what_is_built_is_not(capability: Any) -> None:
    for value in capability.values:
        assert not isinstance(outcome(changed(capability.field, value)), str)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.finetuning_type", "all_weights"),
        ("training.finetuning_type", "lora_merged"),
        ("training.lora.merge", True),
        ("training.precision", "fp8"),
        ("training.attn_implementation", "flash_attention_2"),
        ("dataset.prompt_template", "{a}"),
        ("batch.sequence_packing", True),
        ("parallelism.num_gpus_per_node", 2),
        ("integrations", {"mlflow": {}}),
        ("deployment_config", "cfg"),
    ],
)
def test_lawful_but_unbuilt_is_422_not_built_yet_with_the_way_out(path: str, value: Any) -> None:
    spec = AutomodelJobInput.model_validate(changed(path, value))
    with pytest.raises(NotBuilt, match=rf"^{path}.*is not built yet; use "):
        lower(spec, FACTS, run="r", model="default/base")


def test_a_family_that_cannot_be_trained_is_refused_by_name() -> None:
    from dataclasses import replace

    with pytest.raises(NotBuilt, match="family 'mamba' of default/base cannot be trained yet"):
        lower(AutomodelJobInput.model_validate(BASE), replace(FACTS, family="mamba"), run="r", model="default/base")
