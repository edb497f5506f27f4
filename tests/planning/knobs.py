"""The harness of the knob tests: a base spec for each dialect and method, another value for each of its leaves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tunesmith.errors import Invalid
from tunesmith.planning.dialects import DIALECTS, Dialect
from tunesmith.planning.facts import Linear, ModelFacts, Module
from tunesmith.spec.unsloth import SEVEN

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
    modules=(
        Module("embed_tokens", 40),
        Module("layers.0.q_proj", 20, bias=4),
        Module("layers.0.up_proj", 32),
        Module("norm", 4),
    ),
)
TWO_LAYERS = replace(
    FACTS,
    num_layers=2,
    linears=(*FACTS.linears, Linear("layers.1.q_proj", 4, 4), Linear("layers.1.up_proj", 4, 8)),
    modules=(*FACTS.modules, Module("layers.1.q_proj", 20, bias=4), Module("layers.1.up_proj", 32)),
)
SEVEN_LINEARS = replace(FACTS, linears=tuple(Linear(f"layers.0.{name}", 4, 4) for name in SEVEN))


@dataclass(frozen=True)
class Regime:
    """A dialect, a spec to start from, and a value other than the base's for each leaf."""

    dialect: Dialect
    base: dict[str, Any]
    changed: dict[str, Any]
    facts: ModelFacts = FACTS

    def spec(self, path: str = "", value: Any = None) -> dict[str, Any]:
        """The base with one leaf set."""
        return with_leaf(self.base, path, value) if path else self.base


def with_leaf(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `base` with the value at a dotted path set, and the way to it made."""
    first, _, rest = path.partition(".")
    return {**base, first: with_leaf(base.get(first) or {}, rest, value) if rest else value}


def outcome(regime: Regime, spec: dict[str, Any]) -> Any:
    """All that a user can see of a submission, or the text of the refusal."""
    dialect = regime.dialect
    try:
        asked = dialect.input.model_validate(spec)
        return (
            dialect.lower(asked, regime.facts, run="r", model="default/base"),
            dialect.named(asked),
            dialect.result(asked),
            dialect.needs(asked),
            dialect.secrets(asked),
            dialect.deployment(asked),
        )
    except (ValueError, Invalid) as error:
        return str(error)


AUTOMODEL = Regime(
    DIALECTS["automodel"],
    base={
        "model": "base",
        "dataset": {"training": "rows"},
        "training": {"finetuning_type": "lora", "lora": {}},
        "schedule": {"epochs": 3},
        "batch": {"global_batch_size": 8},
    },
    changed={
        "name": "label",
        "model": "other",
        "dataset.training": "others",
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
        "output": {"name": "mine"},
        "integrations": {"wandb": {"project": "p"}},
        "deployment_config": {"lora_enabled": True},
    },
)

UNSLOTH = Regime(
    DIALECTS["unsloth"],
    base={
        "model": {"name": "base", "load_in_4bit": False},
        "dataset": {"path": "rows"},
        "training": {"lora": {"target_modules": ["q_proj", "up_proj"], "rank": 2}},
        "schedule": {"epochs": 3},
        "optimizer": {"optim": "adamw_torch"},
    },
    changed={
        "name": "label",
        "model.name": "other",
        "model.max_seq_length": 99,
        "model.load_in_4bit": True,
        "model.load_in_8bit": True,
        "model.dtype": "float32",
        "model.trust_remote_code": True,
        "model.device_map": "auto",
        "model.rope_scaling": {"factor": 2},
        "dataset.path": "others",
        "dataset.text_field": "body",
        "dataset.apply_chat_template": True,
        "dataset.validation_path": "held-out",
        "dataset.packing": True,
        "training.training_type": "distillation",
        "training.finetuning_type": "all_weights",
        "training.lora.rank": 4,
        "training.lora.alpha": 5,
        "training.lora.dropout": 0.5,
        "training.lora.target_modules": ["q_proj"],
        "training.lora.bias": "all",
        "training.lora.use_rslora": True,
        "training.lora.random_state": 5,
        "training.lora.use_dora": True,
        "training.lora.loftq_config": {"loftq_bits": 4},
        "training.lora.modules_to_save": ["norm"],
        "training.lora.layers_to_transform": 1,
        "training.lora.layer_replication": [[0, 1]],
        "training.lora.init_lora_weights": "pissa",
        "training.use_gradient_checkpointing": "false",
        "schedule.epochs": 2,
        "schedule.max_steps": 7,
        "schedule.warmup_steps": 3,
        "schedule.warmup_ratio": 0.5,
        "schedule.lr_scheduler_type": "cosine",
        "schedule.logging_steps": 5,
        "schedule.save_steps": 5,
        "schedule.eval_steps": 5,
        "schedule.seed": 5,
        "schedule.lr_scheduler_kwargs": {"num_cycles": 2},
        "batch.per_device_train_batch_size": 2,
        "batch.gradient_accumulation_steps": 2,
        "optimizer.learning_rate": 1e-3,
        "optimizer.weight_decay": 0.5,
        "optimizer.optim": "sgd",
        "optimizer.adam_beta1": 0.5,
        "optimizer.adam_beta2": 0.5,
        "optimizer.adam_epsilon": 1e-3,
        "optimizer.max_grad_norm": 0.5,
        "optimizer.label_smoothing_factor": 0.1,
        "optimizer.neftune_noise_alpha": 5.0,
        "hardware.gpus": "1",
        "hardware.precision": "fp16",
        "output": {"name": "mine"},
        "integrations": {"mlflow": {}},
        "deployment_config": "small",
    },
    facts=TWO_LAYERS,
)


def of_all_weights(lora: Regime, facts: ModelFacts, base: dict[str, Any], back: Any) -> Regime:
    """The regime without adapter beside `lora`: its leaves but those of the adapter, which is one leaf now."""
    kept = {path: value for path, value in lora.changed.items() if not path.startswith("training.lora.")}
    return Regime(lora.dialect, base, {**kept, "training.finetuning_type": back, "training.lora": {}}, facts)


AUTOMODEL_FULL = of_all_weights(
    AUTOMODEL, FACTS, {**AUTOMODEL.base, "training": {"finetuning_type": "all_weights"}}, "lora_merged"
)
UNSLOTH_FULL = of_all_weights(
    UNSLOTH, SEVEN_LINEARS, {**UNSLOTH.base, "training": {"finetuning_type": "all_weights"}}, "lora"
)

_RL = {
    "name": "label",
    "model": "other",
    "dataset": "others",
    "training.finetuning_type": "lora_merged",
    "training.optimizer_type": "adam_with_flat_lr",
    "training.learning_rate": 1e-3,
    "training.min_learning_rate": 1e-7,
    "training.weight_decay": 0.5,
    "training.adam_beta1": 0.5,
    "training.adam_beta2": 0.5,
    "training.adam_eps": 1e-3,
    "training.warmup_steps": 3,
    "training.max_grad_norm": 0.5,
    "training.epochs": 2,
    "training.max_steps": 7,
    "training.val_check_interval": 0.5,
    "training.val_at_end": False,
    "training.keep_top_k": 3,
    "training.micro_batch_size": 2,
    "training.activation_checkpointing": True,
    "training.max_seq_length": 99,
    "training.seed": 5,
    "training.parallelism.num_nodes": 2,
    "training.parallelism.num_gpus_per_node": 2,
    "training.parallelism.tensor_parallel_size": 2,
    "training.parallelism.pipeline_parallel_size": 2,
    "training.parallelism.context_parallel_size": 2,
    "training.parallelism.sequence_parallel": True,
    "training.execution_profile": "big",
    "training.ref_policy_kl_penalty": 0.5,
    "output": {"name": "mine"},
    "integrations": {"wandb": {"project": "p"}},
    "deployment_config": {"gpu": 0},
}

DPO = Regime(
    DIALECTS["rl"],
    base={"model": "base", "dataset": "rows", "training": {"type": "dpo"}},
    changed={
        **_RL,
        "training.lora": {"rank": 4},
        "training.type": "grpo",
        "training.batch_size": 8,
        "training.preference_average_log_probs": True,
        "training.sft_average_log_probs": True,
        "training.preference_loss_weight": 0.5,
        "training.sft_loss_weight": 0.5,
    },
)

GRPO = Regime(
    DIALECTS["rl"],
    base={
        "model": "base",
        "dataset": "rows",
        "training": {"type": "grpo", "finetuning_type": "lora", "environment": {"name": "comp_coding"}},
    },
    changed={
        **_RL,
        "training.lora.rank": 4,
        "training.lora.alpha": 5,
        "training.lora.dropout": 0.5,
        "training.lora.merge": True,
        "training.lora.target_modules": ["q_proj"],
        "training.lora.exclude_modules": ["*up*"],
        "training.lora.use_triton": False,
        "training.type": "dpo",
        "training.environment.name": "mcqa",
        "training.environment.num_processes": 2,
        "training.environment.unit_test_timeout_secs": 2,
        "training.num_prompts_per_step": 2,
        "training.num_generations_per_prompt": 4,
        "training.generation_batch_size": 2,
        "training.generation_temperature": 0.5,
        "training.generation_top_k": 5,
        "training.generation_top_p": 0.5,
        "training.generation_pipeline_parallel_size": 2,
        "training.ratio_clip_min": 0.1,
        "training.ratio_clip_max": 0.1,
        "training.ratio_clip_c": 3.0,
        "training.normalize_rewards": False,
        "training.use_rloo": False,
        "training.overlong_filtering": True,
        "training.token_level_loss": False,
        "training.use_importance_sampling_correction": True,
        "training.use_on_policy_kl_approximation": True,
        "training.logprob_chunk_size": 5,
    },
)

BUILT = {
    "automodel": AUTOMODEL,
    "unsloth": UNSLOTH,
    "automodel-full": AUTOMODEL_FULL,
    "unsloth-full": UNSLOTH_FULL,
}
REGIMES = {**BUILT, "dpo": DPO, "grpo": GRPO}

BASE = AUTOMODEL.base


def changed(path: str, value: Any) -> dict[str, Any]:
    """automodel's base with one leaf set."""
    return with_leaf(BASE, path, value)
