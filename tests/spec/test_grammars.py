"""Every field, default and constraint of the grammars, as they are published; and the rules between fields."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tunesmith.spec.base import Spec, leaf, leaves
from tunesmith.spec.grammars import GRAMMARS
from tunesmith.spec.rl import RlJobInput
from tunesmith.spec.unsloth import UnslothJobInput

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LEAST: dict[str, dict[str, Any]] = {
    "automodel": {"model": "m", "dataset": {"training": "d"}, "training": {}},
    "unsloth": {"model": {"name": "m"}, "dataset": {"path": "d"}},
    "rl": {"model": "m", "dataset": "d", "training": {}},
}
BESIDE: dict[str, Any] = {"name": None, "integrations": None, "deployment_config": None, "output": None}
DEFAULTS: dict[str, dict[str, Any]] = {
    "unsloth": {
        **BESIDE,
        "model.name": "m",
        "model.max_seq_length": 2048,
        "model.load_in_4bit": True,
        "model.load_in_8bit": False,
        "model.dtype": "auto",
        "model.trust_remote_code": False,
        "model.device_map": None,
        "model.rope_scaling": None,
        "dataset.path": "d",
        "dataset.text_field": "text",
        "dataset.apply_chat_template": False,
        "dataset.validation_path": None,
        "dataset.packing": False,
        "training.training_type": "sft",
        "training.finetuning_type": "lora",
        "training.use_gradient_checkpointing": "unsloth",
        "training.lora.rank": 16,
        "training.lora.alpha": 16,
        "training.lora.dropout": 0.0,
        "training.lora.target_modules": SEVEN,
        "training.lora.bias": "none",
        "training.lora.use_rslora": False,
        "training.lora.random_state": 3407,
        "training.lora.use_dora": False,
        "training.lora.loftq_config": None,
        "training.lora.modules_to_save": None,
        "training.lora.layers_to_transform": None,
        "training.lora.layer_replication": None,
        "training.lora.init_lora_weights": True,
        "schedule.epochs": 1,
        "schedule.max_steps": None,
        "schedule.warmup_steps": 0,
        "schedule.warmup_ratio": None,
        "schedule.lr_scheduler_type": "linear",
        "schedule.logging_steps": 1,
        "schedule.save_steps": None,
        "schedule.eval_steps": None,
        "schedule.seed": 3407,
        "schedule.lr_scheduler_kwargs": None,
        "batch.per_device_train_batch_size": 1,
        "batch.gradient_accumulation_steps": 1,
        "optimizer.learning_rate": 2e-4,
        "optimizer.weight_decay": 0.0,
        "optimizer.optim": "adamw_8bit",
        "optimizer.adam_beta1": 0.9,
        "optimizer.adam_beta2": 0.999,
        "optimizer.adam_epsilon": 1e-8,
        "optimizer.max_grad_norm": 1.0,
        "optimizer.label_smoothing_factor": 0.0,
        "optimizer.neftune_noise_alpha": None,
        "hardware.gpus": None,
        "hardware.precision": "bf16",
    },
    "rl": {
        **BESIDE,
        "model": "m",
        "dataset": "d",
        "training.type": "dpo",
        "training.finetuning_type": "all_weights",
        "training.lora": None,
        "training.optimizer_type": None,
        "training.learning_rate": 1e-4,
        "training.min_learning_rate": None,
        "training.weight_decay": 0.01,
        "training.adam_beta1": 0.9,
        "training.adam_beta2": 0.999,
        "training.adam_eps": 1e-5,
        "training.warmup_steps": 0,
        "training.epochs": 1,
        "training.max_steps": None,
        "training.val_check_interval": None,
        "training.val_at_end": True,
        "training.keep_top_k": 1,
        "training.batch_size": 32,
        "training.micro_batch_size": 1,
        "training.activation_checkpointing": False,
        "training.max_seq_length": 2048,
        "training.seed": None,
        "training.parallelism.num_gpus_per_node": 1,
        "training.parallelism.num_nodes": 1,
        "training.parallelism.tensor_parallel_size": 1,
        "training.parallelism.pipeline_parallel_size": 1,
        "training.parallelism.context_parallel_size": 1,
        "training.parallelism.sequence_parallel": False,
        "training.execution_profile": None,
        "training.ref_policy_kl_penalty": 0.05,
        "training.preference_average_log_probs": False,
        "training.sft_average_log_probs": False,
        "training.preference_loss_weight": 1.0,
        "training.sft_loss_weight": 0.0,
        "training.max_grad_norm": 1.0,
    },
    "automodel": {
        **BESIDE,
        "model": "m",
        "dataset.training": "d",
        "dataset.validation": None,
        "dataset.prompt_template": None,
        "training.training_type": "sft",
        "training.finetuning_type": "lora",
        "training.lora.rank": 16,
        "training.lora.alpha": 32,
        "training.lora.dropout": 0.0,
        "training.lora.merge": False,
        "training.lora.target_modules": None,
        "training.lora.exclude_modules": None,
        "training.lora.use_triton": True,
        "training.max_seq_length": 2048,
        "training.precision": None,
        "training.attn_implementation": "sdpa",
        "training.execution_profile": None,
        "training.teacher_model": None,
        "training.distillation_ratio": 0.5,
        "training.distillation_temperature": 1.0,
        "training.teacher_precision": "bf16",
        "training.offload_teacher": False,
        "schedule.epochs": 1,
        "schedule.max_steps": None,
        "schedule.val_check_interval": None,
        "schedule.seed": None,
        "batch.global_batch_size": 8,
        "batch.micro_batch_size": 1,
        "batch.sequence_packing": False,
        "batch.sequence_packing_max_samples": 1000,
        "optimizer.learning_rate": 5e-6,
        "optimizer.min_learning_rate": None,
        "optimizer.weight_decay": 0.01,
        "optimizer.adam_beta1": 0.9,
        "optimizer.adam_beta2": 0.999,
        "optimizer.warmup_steps": 0,
        "optimizer.adam_eps": 1e-8,
        "optimizer.optimizer": "Adam",
        "optimizer.lr_decay_style": "cosine",
        "parallelism.num_nodes": 1,
        "parallelism.num_gpus_per_node": 1,
        "parallelism.tensor_parallel_size": 1,
        "parallelism.pipeline_parallel_size": 1,
        "parallelism.context_parallel_size": 1,
        "parallelism.expert_parallel_size": None,
        "parallelism.sequence_parallel": False,
    },
}


def with_(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    first, _, rest = path.partition(".")
    return {**base, first: with_(base.get(first) or {}, rest, value) if rest else value}


@pytest.mark.parametrize("backend", GRAMMARS)
def test_fields_and_defaults_are_the_published_ones(backend: str) -> None:
    assert dict(leaves(GRAMMARS[backend].model_validate(LEAST[backend]))) == DEFAULTS[backend]


@pytest.mark.parametrize("backend", GRAMMARS)
def test_every_field_has_its_meaning_beside_it(backend: str) -> None:
    schema = GRAMMARS[backend].model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        for name, field in part.get("properties", {}).items():
            assert "$ref" in field or field.get("description"), f"{part['title']}.{name}"


@pytest.mark.parametrize("backend", GRAMMARS)
def test_unknown_keys_are_refused_everywhere(backend: str) -> None:
    base = LEAST[backend]
    sections = {path.rpartition(".")[0] for path in DEFAULTS[backend]}
    for section in sections:
        with pytest.raises(ValidationError, match="colour"):
            GRAMMARS[backend].model_validate(with_(base, f"{section}.colour".lstrip("."), "red"))


@pytest.mark.parametrize(
    ("backend", "path", "bad", "good"),
    [
        ("unsloth", "model.max_seq_length", 0, 1),
        ("unsloth", "training.lora.rank", 0, 1),
        ("unsloth", "training.lora.alpha", 0, 1),
        ("unsloth", "training.lora.dropout", 1.0, 0.99),
        ("unsloth", "training.lora.init_lora_weights", "random", "olora"),
        ("unsloth", "training.lora.layers_to_transform", "all", [0, 1]),
        ("unsloth", "training.use_gradient_checkpointing", True, "true"),
        ("unsloth", "training.training_type", "distillation", "sft"),
        ("unsloth", "schedule.epochs", 0, 2),
        ("unsloth", "schedule.max_steps", 0, 2),
        ("unsloth", "schedule.warmup_steps", -1, 2),
        ("unsloth", "schedule.warmup_ratio", 1.1, 1.0),
        ("unsloth", "schedule.lr_scheduler_type", "polynomial", "cosine_with_restarts"),
        ("unsloth", "schedule.logging_steps", 0, 2),
        ("unsloth", "batch.gradient_accumulation_steps", 0, 2),
        ("unsloth", "optimizer.learning_rate", 0, 1e-5),
        ("unsloth", "optimizer.weight_decay", -1, 0.1),
        ("unsloth", "optimizer.optim", "lion", "paged_adamw_8bit"),
        ("unsloth", "optimizer.adam_beta1", 1.0, 0.0),
        ("unsloth", "optimizer.label_smoothing_factor", 1.0, 0.5),
        ("unsloth", "optimizer.neftune_noise_alpha", -1, 5),
        ("unsloth", "hardware.gpus", "first", "0, 1"),
        ("unsloth", "hardware.gpus", 0, "0"),
        ("unsloth", "hardware.precision", "fp32", "fp16"),
        ("unsloth", "output.save_method", "gguf", "merged_4bit"),
        ("unsloth", "output.type", "adapter", None),
        ("rl", "training.type", "ppo", "dpo"),
        ("rl", "training.learning_rate", -1, 0),
        ("rl", "training.adam_eps", 0, 1e-8),
        ("rl", "training.batch_size", 0, 64),
        ("rl", "training.ref_policy_kl_penalty", -0.1, 0),
        ("rl", "training.optimizer_type", "adam", "adam_with_flat_lr"),
        ("rl", "training.peft", {}, None),
    ],
)
def test_constraints_are_the_published_ones(backend: str, path: str, bad: Any, good: Any) -> None:
    grammar = GRAMMARS[backend]
    with pytest.raises(ValidationError, match=path.rpartition(".")[2]):
        grammar.model_validate(with_(LEAST[backend], path, bad))
    if good is not None:
        assert leaf(grammar.model_validate(with_(LEAST[backend], path, good)), path) == good


UNQUANTISED = {"name": "m", "load_in_4bit": False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"name": "m", "load_in_8bit": True}},
            "model.load_in_4bit and model.load_in_8bit are mutually exclu",
        ),
        (
            {"training": {"finetuning_type": "all_weights"}},
            "is incompatible with 4-bit/8-bit loading: model.load_in_4bit is true; set model.load_in_4bit=false",
        ),
        (
            {"model": UNQUANTISED, "training": {"finetuning_type": "all_weights", "lora": {}}},
            "training.lora must be unset when finetuning_type='all_weights': leave it out",
        ),
        (
            {"schedule": {"warmup_steps": 3, "warmup_ratio": 0.1}},
            "schedule.warmup_steps and schedule.warmup_ratio are mutually exclusive: they are 3 and 0.1",
        ),
        (
            {
                "model": UNQUANTISED,
                "training": {"finetuning_type": "all_weights"},
                "output": {"save_method": "merged_16bit"},
            },
            "output.save_method='merged_16bit' is only valid for training.finetuning_type='lora': it is 'all_weights'",
        ),
        (
            {"deployment_config": {"lora_enabled": False}},
            "deployment_config.lora_enabled must be true (or omitted) when training a LoRA adapter",
        ),
    ],
)
def test_rules_between_fields_of_unsloth(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        UnslothJobInput.model_validate({**LEAST["unsloth"], **changes})
    assert message in refusal.value.errors()[0]["msg"]


ENVIRONMENT = {"type": "grpo", "environment": {"name": "mcqa"}}


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"batch_size": 10, "micro_batch_size": 4},
            "training.batch_size (10) must be divisible by micro_batch_size (4) * data_parallel_size (1) = 4: 8 or 12",
        ),
        (
            {"parallelism": {"num_gpus_per_node": 4, "tensor_parallel_size": 8}},
            "Total GPUs (4) must be divisible by tensor_parallel_size (8)",
        ),
        ({"learning_rate": 1e-5, "min_learning_rate": 1e-4}, "min_learning_rate (0.0001) must not be above"),
        ({"val_check_interval": 1.5}, "val_check_interval (1.5) must be a whole number of steps"),
        ({"preference_loss_weight": 0}, "preference_loss_weight and training.sft_loss_weight must not both be 0"),
        ({**ENVIRONMENT, "num_generations_per_prompt": 1}, "num_generations_per_prompt (1) must be at least 2"),
        (
            {**ENVIRONMENT, "num_prompts_per_step": 1, "micro_batch_size": 3},
            "training.num_prompts_per_step * training.num_generations_per_prompt (8) must be divisible by",
        ),
        (
            {**ENVIRONMENT, "generation_pipeline_parallel_size": 2},
            "Total GPUs (1) must be divisible by training.generation_pipeline_parallel_size (2)",
        ),
    ],
)
def test_rules_between_fields_of_rl(training: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        RlJobInput.model_validate({**LEAST["rl"], "training": training})
    assert message in refusal.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("environment", "filled_in"),
    [
        ({"name": "workbench"}, {"name": "workbench"}),
        (
            {"name": "library_judge_math", "should_use_judge": True},
            {"name": "library_judge_math", "should_use_judge": True, "judge_temperature": 0.0, "judge_top_p": 1.0},
        ),
        (
            {"name": "comp_coding"},
            {"name": "comp_coding", "num_processes": 8, "unit_test_timeout_secs": 10},
        ),
    ],
)
def test_grpo_needs_an_environment_of_those_that_there_are(environment: dict[str, Any], filled_in: Any) -> None:
    training = {"type": "grpo", "environment": environment}
    spec = RlJobInput.model_validate({**LEAST["rl"], "training": training})
    assert spec.training.model_dump()["environment"] == filled_in
    for wrong in (None, {"name": "chess"}):
        with pytest.raises(ValidationError, match="environment"):
            RlJobInput.model_validate({**LEAST["rl"], "training": {"type": "grpo", "environment": wrong}})


@pytest.mark.parametrize("backend", GRAMMARS)
def test_a_deployment_may_follow_in_every_dialect(backend: str) -> None:
    full: dict[str, Any] = {
        "gpu": 1,
        "additional_envs": {"A": "b"},
        "disk_size": "10Gi",
        "image_name": "i",
        "image_tag": "t",
        "lora_enabled": True,
        "tool_call_config": {"tool_call_parser": "p", "tool_call_plugin": "ws/plugin", "auto_tool_choice": True},
    }
    for config in ("some-config", {}, full):
        spec: Spec = GRAMMARS[backend].model_validate({**LEAST[backend], "deployment_config": config})
        assert leaf(spec, "deployment_config") is not None
    with pytest.raises(ValidationError):
        GRAMMARS[backend].model_validate({**LEAST[backend], "deployment_config": {"tool_call_config": {"x": 1}}})


def test_an_adapter_cannot_follow_into_a_deployment_without_adapters() -> None:
    refused = {"deployment_config": {"lora_enabled": False}}
    for backend in ("automodel", "unsloth"):
        with pytest.raises(ValidationError, match="lora_enabled must be true"):
            GRAMMARS[backend].model_validate({**LEAST[backend], **refused})
    GRAMMARS["rl"].model_validate({**LEAST["rl"], **refused})
    merged = {"training": {"finetuning_type": "lora_merged"}}
    GRAMMARS["automodel"].model_validate({**LEAST["automodel"], **merged, **refused})
