"""The shorthand: one spec for all backends, as `client.customization.jobs.create(spec={...})` sends it.

DPO goes to rl; adapters on quantised weights, or with DoRA, to unsloth; all else to automodel.
"""

from __future__ import annotations

from typing import Any

from tunesmith.errors import Invalid
from tunesmith.spec.translation import Json, No, Rule, Translated, apply, flat, nested, one_of, put, shown

SECTIONS = frozenset({"training", "training.peft", "training.peft.quantization", "training.parallelism", "output"})
DEFAULTS: Json = {
    "training.learning_rate": 1e-4,
    "training.weight_decay": 0.01,
    "training.adam_eps": 1e-8,
    "training.lr_decay_style": "cosine",
    "training.batch_size": 32,
    "training.micro_batch_size": 1,
}
"""Of the shorthand, where a dialect's own differ. They are written out, so that the job shows them."""
LORA_DEFAULTS: Json = {"training.peft.rank": 8, "training.peft.alpha": 32}
RANK_LIMIT = 256
TYPES = ("sft", "distillation", "dpo")
SPREAD = ("num_gpus_per_node", "num_nodes", "tensor_parallel_size", "pipeline_parallel_size", "context_parallel_size")

_EVERY_STEP = No("every step is logged", unless=(1,))
_ONE_DEVICE = No("it trains on one device", unless=(1, False))
_NO_TEACHER = No("it has no distillation; leave out quantization and use_dora to train on automodel")
_NOT_PREFERENCES = No("it is for sft and distillation, and training.type is dpo")
_NOT_SFT = No("it is for training.type dpo")
_AUTOMODEL_ONLY = No("leave out quantization and use_dora to train on automodel, which has it")


def _rank(value: Any) -> Json:
    if not isinstance(value, int) or not 1 <= value <= RANK_LIMIT:
        raise Invalid(f"{shown(value)} must be a whole number from 1 to {RANK_LIMIT}")
    return {"training.lora.rank": value}


def _eval_steps(value: Any) -> Json:
    if value == 0:
        return {}
    if isinstance(value, float | int) and value > 1 and value == int(value):
        return {"schedule.eval_steps": int(value)}
    raise Invalid(f"{shown(value)} must be a whole number of steps above 1 where weights are quantised, or be left out")


_COMMON: dict[str, Rule] = {
    "integrations": "integrations",
    "deployment_config": "deployment_config",
    "output.name": "output.name",
    "output.description": "output.description",
    "training.peft.type": one_of({"lora": {}}),
    "training.peft.rank": _rank,
    "training.peft.alpha": "training.lora.alpha",
    "training.peft.dropout": "training.lora.dropout",
    "training.peft.target_modules": "training.lora.target_modules",
}
_DPO = (
    "ref_policy_kl_penalty",
    "preference_average_log_probs",
    "sft_average_log_probs",
    "preference_loss_weight",
    "sft_loss_weight",
    "max_grad_norm",
)
_TEACHING = ("teacher_model", "teacher_precision", "distillation_ratio", "distillation_temperature", "offload_teacher")

AUTOMODEL: dict[str, Rule] = {
    **_COMMON,
    "model": "model",
    "dataset": "dataset.training",
    "training.type": "training.training_type",
    "training.peft.exclude_modules": "training.lora.exclude_modules",
    "training.peft.use_triton": "training.lora.use_triton",
    "training.peft.merge": "training.lora.merge",
    "training.peft.use_dora": No("this is unsloth's", unless=(False,)),
    "training.learning_rate": "optimizer.learning_rate",
    "training.min_learning_rate": "optimizer.min_learning_rate",
    "training.weight_decay": "optimizer.weight_decay",
    "training.adam_beta1": "optimizer.adam_beta1",
    "training.adam_beta2": "optimizer.adam_beta2",
    "training.adam_eps": "optimizer.adam_eps",
    "training.warmup_steps": "optimizer.warmup_steps",
    "training.optimizer": "optimizer.optimizer",
    "training.lr_decay_style": "optimizer.lr_decay_style",
    "training.epochs": "schedule.epochs",
    "training.max_steps": "schedule.max_steps",
    "training.val_check_interval": "schedule.val_check_interval",
    "training.seed": "schedule.seed",
    "training.log_every_n_steps": _EVERY_STEP,
    "training.batch_size": "batch.global_batch_size",
    "training.micro_batch_size": "batch.micro_batch_size",
    "training.sequence_packing": "batch.sequence_packing",
    "training.sequence_packing_max_samples": "batch.sequence_packing_max_samples",
    "training.max_seq_length": "training.max_seq_length",
    "training.precision": "training.precision",
    "training.attn_implementation": "training.attn_implementation",
    "training.execution_profile": "training.execution_profile",
    **{f"training.{name}": f"training.{name}" for name in _TEACHING},
    **{f"training.parallelism.{name}": f"parallelism.{name}" for name in SPREAD},
    "training.parallelism.expert_parallel_size": "parallelism.expert_parallel_size",
    "training.parallelism.sequence_parallel": "parallelism.sequence_parallel",
    **{f"training.{name}": _NOT_SFT for name in _DPO},
}

UNSLOTH: dict[str, Rule] = {
    **_COMMON,
    "model": "model.name",
    "dataset": "dataset.path",
    "training.type": one_of({"sft": {"training.training_type": "sft"}}),
    "training.peft.quantization.precision": one_of(
        {"4bit": {"model.load_in_4bit": True}, "8bit": {"model.load_in_4bit": False, "model.load_in_8bit": True}}
    ),
    "training.peft.exclude_modules": No("name what to adapt in target_modules"),
    "training.peft.use_triton": No("it chooses its kernels by itself", unless=(True,)),
    "training.peft.merge": one_of({True: {"output.save_method": "merged_16bit"}, False: {}}),
    "training.peft.use_dora": "training.lora.use_dora",
    "training.learning_rate": "optimizer.learning_rate",
    "training.min_learning_rate": No("the learning rate ends at 0", unless=(0,)),
    "training.weight_decay": "optimizer.weight_decay",
    "training.adam_beta1": "optimizer.adam_beta1",
    "training.adam_beta2": "optimizer.adam_beta2",
    "training.adam_eps": "optimizer.adam_epsilon",
    "training.warmup_steps": "schedule.warmup_steps",
    "training.optimizer": one_of({"AdamW": {"optimizer.optim": "adamw_torch"}}),
    "training.lr_decay_style": one_of(
        {
            "cosine": {"schedule.lr_scheduler_type": "cosine"},
            "linear": {"schedule.lr_scheduler_type": "linear"},
            "constant": {"schedule.lr_scheduler_type": "constant_with_warmup"},
        }
    ),
    "training.epochs": "schedule.epochs",
    "training.max_steps": "schedule.max_steps",
    "training.val_check_interval": _eval_steps,
    "training.seed": lambda seed: {"schedule.seed": seed, "training.lora.random_state": seed},
    "training.log_every_n_steps": "schedule.logging_steps",
    "training.micro_batch_size": "batch.per_device_train_batch_size",
    "training.accumulation": "batch.gradient_accumulation_steps",
    "training.sequence_packing": "dataset.packing",
    "training.sequence_packing_max_samples": No("it looks at 1000 rows at a time", unless=(1000,)),
    "training.max_seq_length": "model.max_seq_length",
    "training.precision": "hardware.precision",
    "training.attn_implementation": No("it chooses its attention by itself", unless=("sdpa",)),
    "training.execution_profile": _AUTOMODEL_ONLY,
    **{f"training.{name}": _NO_TEACHER for name in _TEACHING},
    **{f"training.parallelism.{name}": _ONE_DEVICE for name in SPREAD},
    "training.parallelism.expert_parallel_size": _ONE_DEVICE,
    "training.parallelism.sequence_parallel": _ONE_DEVICE,
    **{f"training.{name}": _NOT_SFT for name in _DPO},
}

_SAME_IN_RL = (
    "type",
    "learning_rate",
    "min_learning_rate",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_eps",
    "warmup_steps",
    "optimizer_type",
    "epochs",
    "max_steps",
    "val_check_interval",
    "batch_size",
    "micro_batch_size",
    "max_seq_length",
    "seed",
    "execution_profile",
    *_DPO,
)
RL: dict[str, Rule] = {
    **_COMMON,
    "model": "model",
    "dataset": "dataset",
    **{f"training.{name}": f"training.{name}" for name in _SAME_IN_RL},
    "training.peft.exclude_modules": "training.lora.exclude_modules",
    "training.peft.use_triton": "training.lora.use_triton",
    "training.peft.merge": "training.lora.merge",
    "training.peft.use_dora": No("this is unsloth's, which learns from rows", unless=(False,)),
    "training.peft.quantization.precision": No("this is unsloth's, which learns from rows"),
    "training.log_every_n_steps": _EVERY_STEP,
    "training.sequence_packing": No("pairs are not packed", unless=(False,)),
    "training.sequence_packing_max_samples": No("pairs are not packed", unless=(1000,)),
    "training.precision": No("it computes in bf16 where the processor has it"),
    "training.attn_implementation": No("it chooses its attention by itself", unless=("sdpa",)),
    **{f"training.{name}": _NOT_PREFERENCES for name in _TEACHING},
    **{f"training.parallelism.{name}": f"training.parallelism.{name}" for name in SPREAD},
    "training.parallelism.expert_parallel_size": No("experts stay together", unless=(1,)),
    "training.parallelism.sequence_parallel": "training.parallelism.sequence_parallel",
}
OPTIMIZER_TYPES = {"cosine": "with_cosine_annealing", "constant": "with_flat_lr"}
TABLES = {"automodel": AUTOMODEL, "unsloth": UNSLOTH, "rl": RL}


def shorthand(spec: Json) -> Translated:
    """The job that the shorthand means; Invalid names a field that cannot be said in the backend that it goes to."""
    values = flat(spec, SECTIONS, "spec.")
    custom_fields = values.pop("custom_fields", None)
    if not isinstance(custom_fields, dict | None):
        raise Invalid(f"spec.custom_fields: must be an object, not {shown(custom_fields)}")
    training = spec.get("training")
    peft = training.get("peft") if isinstance(training, dict) else None
    method = values.get("training.type")
    if method not in TYPES:
        asked = "is missing" if method is None else f"'{shown(method)}' is none of this call's"
        raise Invalid(f"spec.training.type: {asked}; it must be {', '.join(TYPES[:-1])} or {TYPES[-1]}")
    if peft is not None and peft.get("quantization") is not None:
        values.setdefault("training.peft.quantization.precision", "4bit")
    backend = _backend(values)
    for path, value in {**DEFAULTS, **(LORA_DEFAULTS if peft is not None else {})}.items():
        values.setdefault(path, value)
    filled_in = nested(values)
    if backend == "unsloth":
        _accumulate(values)
    if backend == "rl":
        _name_optimizer(values)
    made, fields = apply(TABLES[backend], values, "spec.", backend)
    put(made, "training.finetuning_type", "all_weights" if peft is None else "lora")
    if backend == "unsloth":
        made.setdefault("model", {}).setdefault("load_in_4bit", False)
        made["optimizer"].setdefault("optim", "adamw_torch")
        made.setdefault("dataset", {})["apply_chat_template"] = True
    return Translated(backend, made, fields, custom_fields=custom_fields, shown=filled_in)


def _backend(values: Json) -> str:
    if values["training.type"] == "dpo":
        return "rl"
    quantised = "training.peft.quantization.precision" in values
    return "unsloth" if quantised or values.get("training.peft.use_dora") else "automodel"


def _accumulate(values: Json) -> None:
    """unsloth says how often a batch is added up, not how large the sum is."""
    rows, micro = values.pop("training.batch_size"), values["training.micro_batch_size"]
    if not isinstance(rows, int) or not isinstance(micro, int) or micro < 1 or rows % micro:
        raise Invalid(
            f"spec.training.batch_size ({shown(rows)}) must be divisible by micro_batch_size ({shown(micro)}): "
            "rows are added up in whole passes"
        )
    values["training.accumulation"] = rows // micro


def _name_optimizer(values: Json) -> None:
    """rl has one word for the optimizer and for how its learning rate falls."""
    kind, style = values.pop("training.optimizer", "Adam"), values.pop("training.lr_decay_style")
    if kind not in ("Adam", "AdamW") or style not in tuple(OPTIMIZER_TYPES):  # a list has no hash
        raise Invalid(
            f"spec.training.optimizer ({shown(kind)}) must be Adam or AdamW, and lr_decay_style ({shown(style)}) "
            f"{' or '.join(OPTIMIZER_TYPES)}, where training.type is dpo"
        )
    values["training.optimizer_type"] = f"{kind.lower()}_{OPTIMIZER_TYPES[style]}"
