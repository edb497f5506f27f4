"""The older call, `POST /v1/customization/jobs`, as nemo-microservices 1.5 sends it: config, dataset, hyperparameters.

Supervised jobs and distillation go to automodel, dpo and grpo to rl.
"""

from __future__ import annotations

from typing import Any

from tunesmith.errors import Invalid
from tunesmith.refs import DEFAULT_WORKSPACE
from tunesmith.spec.translation import Json, No, Rule, Translated, apply, flat, nested, one_of, put, shown

SECTIONS = frozenset(
    {"hyperparameters"} | {f"hyperparameters.{name}" for name in ("lora", "sft", "distillation", "dpo", "grpo")}
)
DEFAULTS: Json = {"hyperparameters.learning_rate": 1e-4, "hyperparameters.batch_size": 32}
DPO_DEFAULTS: Json = {"hyperparameters.learning_rate": 9e-6, "hyperparameters.batch_size": 16}
"""As the old client documents them."""
LORA_DEFAULTS: Json = {"hyperparameters.lora.adapter_dim": 8, "hyperparameters.lora.alpha": 32}
LABELS = ("description", "project", "custom_fields", "ownership", "created_at", "updated_at")
"""What a config has beside what it says of model and training; it may come as it was retrieved."""
LOWEST_SHARE = 0.1
"""Of the peak, where a falling learning rate ends unless another minimum is asked for."""

_EVERY_STEP = No("every step is logged", unless=(1,))
_NO_DROPOUT = No("the model has no dropout of its own; lora.adapter_dropout is the adapter's", unless=(0,))


def _optimizer(kinds: tuple[str, ...] = ("adam", "adamw")) -> Rule:
    names = {"adam": "Adam", "adamw": "AdamW"}
    styles = {"with_cosine_annealing": "cosine", "with_flat_lr": "constant"}
    return one_of(
        {
            f"{kind}_{words}": {"optimizer.optimizer": names[kind], "optimizer.lr_decay_style": style}
            for kind in kinds
            for words, style in styles.items()
        }
    )


_DPO = (
    "ref_policy_kl_penalty",
    "preference_loss_weight",
    "sft_loss_weight",
    "preference_average_log_probs",
    "sft_average_log_probs",
    "max_grad_norm",
)
_GRPO = (
    "environment",
    "num_prompts_per_step",
    "num_generations_per_prompt",
    "generation_batch_size",
    "generation_temperature",
    "generation_top_k",
    "generation_top_p",
    "generation_pipeline_parallel_size",
    "ref_policy_kl_penalty",
    "ratio_clip_min",
    "ratio_clip_max",
    "ratio_clip_c",
    "normalize_rewards",
    "use_rloo",
    "overlong_filtering",
    "token_level_loss",
    "use_importance_sampling_correction",
    "use_on_policy_kl_approximation",
    "logprob_chunk_size",
    "max_grad_norm",
)
_COMMON: dict[str, Rule] = {
    "hyperparameters.finetuning_type": "training.finetuning_type",
    "hyperparameters.lora.adapter_dim": "training.lora.rank",
    "hyperparameters.lora.alpha": "training.lora.alpha",
    "hyperparameters.lora.adapter_dropout": "training.lora.dropout",
    "hyperparameters.lora.target_modules": "training.lora.target_modules",
    "hyperparameters.log_every_n_steps": _EVERY_STEP,
    "hyperparameters.sft.hidden_dropout": _NO_DROPOUT,
    "hyperparameters.sft.attention_dropout": _NO_DROPOUT,
    "integrations": lambda trackers: {"integrations": _integrations(trackers)},
}
AUTOMODEL: dict[str, Rule] = {
    **_COMMON,
    "hyperparameters.training_type": "training.training_type",
    "hyperparameters.batch_size": "batch.global_batch_size",
    "hyperparameters.epochs": "schedule.epochs",
    "hyperparameters.max_steps": "schedule.max_steps",
    "hyperparameters.val_check_interval": "schedule.val_check_interval",
    "hyperparameters.seed": "schedule.seed",
    "hyperparameters.learning_rate": "optimizer.learning_rate",
    "hyperparameters.min_learning_rate": "optimizer.min_learning_rate",
    "hyperparameters.weight_decay": "optimizer.weight_decay",
    "hyperparameters.warmup_steps": "optimizer.warmup_steps",
    "hyperparameters.adam_beta1": "optimizer.adam_beta1",
    "hyperparameters.adam_beta2": "optimizer.adam_beta2",
    "hyperparameters.optimizer": _optimizer(),
    "hyperparameters.sequence_packing_enabled": "batch.sequence_packing",
    "hyperparameters.distillation.teacher": lambda teacher: {"training.teacher_model": _without_version(teacher)},
    **{f"hyperparameters.dpo.{name}": No("it is for training_type dpo") for name in _DPO},
    **{f"hyperparameters.grpo.{name}": No("it is for training_type grpo") for name in _GRPO},
}
_SAME_IN_RL = (
    "epochs",
    "max_steps",
    "val_check_interval",
    "seed",
    "learning_rate",
    "min_learning_rate",
    "weight_decay",
    "warmup_steps",
    "adam_beta1",
    "adam_beta2",
)
_RL: dict[str, Rule] = {
    **_COMMON,
    "hyperparameters.training_type": "training.type",
    **{f"hyperparameters.{name}": f"training.{name}" for name in _SAME_IN_RL},
    "hyperparameters.optimizer": "training.optimizer_type",
    "hyperparameters.sequence_packing_enabled": No("answers are not packed", unless=(False,)),
    "hyperparameters.distillation.teacher": No("it is for training_type distillation"),
}
DPO: dict[str, Rule] = {
    **_RL,
    "hyperparameters.batch_size": "training.batch_size",
    **{f"hyperparameters.dpo.{name}": f"training.{name}" for name in _DPO},
    **{f"hyperparameters.grpo.{name}": No("it is for training_type grpo") for name in _GRPO},
}
GRPO: dict[str, Rule] = {
    **_RL,
    "hyperparameters.batch_size": No(
        "a step holds grpo.num_prompts_per_step x grpo.num_generations_per_prompt answers"
    ),
    **{f"hyperparameters.dpo.{name}": No("it is for training_type dpo") for name in _DPO},
    **{f"hyperparameters.grpo.{name}": f"training.{name}" for name in _GRPO},
}
TABLES: dict[str, tuple[str, dict[str, Rule]]] = {
    "sft": ("automodel", AUTOMODEL),
    "distillation": ("automodel", AUTOMODEL),
    "dpo": ("rl", DPO),
    "grpo": ("rl", GRPO),
}
"""hyperparameters.training_type -> backend and table."""

_PRECISIONS = {"bf16": "bf16", "fp16": "fp16", "fp32": "fp32", "bf16-mixed": "bf16", "fp8-mixed": "fp8"}
_PRECISION = one_of({word: {"training.precision": ours} for word, ours in _PRECISIONS.items()})
_CONFIG: dict[str, dict[str, Rule]] = {
    "automodel": {
        "max_seq_length": "training.max_seq_length",
        "training_precision": _PRECISION,
        "prompt_template": "dataset.prompt_template",
    },
    "rl": {
        "max_seq_length": "training.max_seq_length",
        "training_precision": No("it computes in bf16 where the processor has it"),
        "prompt_template": No("rows are taken as they are"),
    },
}
_OPTION: dict[str, Rule] = {
    "num_gpus": "parallelism.num_gpus_per_node",
    "num_nodes": "parallelism.num_nodes",
    "tensor_parallel_size": "parallelism.tensor_parallel_size",
    "pipeline_parallel_size": "parallelism.pipeline_parallel_size",
    "expert_model_parallel_size": "parallelism.expert_parallel_size",
    "use_sequence_parallel": "parallelism.sequence_parallel",
    "micro_batch_size": "batch.micro_batch_size",
}
_OPTIONS: dict[str, dict[str, Rule]] = {
    "automodel": _OPTION,
    "rl": {
        **{name: f"training.{target}" for name, target in _OPTION.items()},
        "expert_model_parallel_size": No("experts stay together", unless=(1,)),
        "micro_batch_size": "training.micro_batch_size",
    },
}


def legacy(body: Json) -> Translated:
    """The job that the older call means; Invalid names a field that cannot be said in the backend that it goes to."""
    values = flat(body, SECTIONS)
    values.setdefault("hyperparameters.training_type", "sft")
    method, tuned = values["hyperparameters.training_type"], values.get("hyperparameters.finetuning_type")
    if not isinstance(method, str) or method not in TABLES:
        raise Invalid(f"hyperparameters.training_type: '{shown(method)}' must be {', '.join(TABLES)}")
    if tuned is None:
        raise Invalid("hyperparameters.finetuning_type: is missing; it must be lora, lora_merged or all_weights")
    backend, rules = TABLES[method]
    config, dataset = values.pop("config", None), values.pop("dataset", None)
    beside = {name: values.pop(name, None) for name in ("name", "description", "project", "ownership", "custom_fields")}
    workspace, output = values.pop("namespace", None), values.pop("output_model", None)
    if "dataset_parameters" in values:
        raise Invalid("dataset_parameters: these are for embedding models, which are not built yet; leave them out")
    _fill_in(values, method, str(tuned))
    sent = {"config": config, "dataset": dataset, **({"output_model": output} if output is not None else {})}
    filled_in = {**sent, **nested(values)}
    spec, fields = apply(rules, values, "", backend)
    model, from_config, fields_of_config = _config(config, backend, method, str(tuned))
    fields = {**fields_of_config, **fields}
    for section, made in from_config.items():
        spec[section] = {**made, **spec.get(section, {})} if isinstance(made, dict) else made
    rows = "dataset.training" if backend == "automodel" else "dataset"
    put(spec, "model", model)
    put(spec, rows, _dataset(dataset))
    fields |= {"model": "config", rows: "dataset"}
    if output is not None:
        fields["output.name"] = "output_model"
        put(spec, "output.name", _output(output, workspace, model))
    namespace, slash, name = model.partition("/")
    otherwise = f"{DEFAULT_WORKSPACE}/{name}" if slash and namespace != DEFAULT_WORKSPACE else None
    return Translated(backend, spec, fields, workspace, **beside, model_otherwise=otherwise, shown=filled_in)


def _fill_in(values: Json, method: str, tuned: str) -> None:
    """The call's defaults, and two habits of it: the lowest learning rate, and an interval that must fit the steps."""
    defaults = {"grpo": {}, "dpo": DPO_DEFAULTS}.get(method, DEFAULTS)
    for path, value in {**defaults, **(LORA_DEFAULTS if tuned.startswith("lora") else {})}.items():
        values.setdefault(path, value)
    peak = values.get("hyperparameters.learning_rate")
    falls = not str(values.get("hyperparameters.optimizer", "")).endswith("_with_flat_lr")
    if falls and not values.get("hyperparameters.min_learning_rate") and isinstance(peak, float | int):
        values["hyperparameters.min_learning_rate"] = peak * LOWEST_SHARE
    steps, interval = (values.get(f"hyperparameters.{name}") for name in ("max_steps", "val_check_interval"))
    if isinstance(steps, int) and isinstance(interval, float | int) and max(1, steps) < interval:
        values["hyperparameters.val_check_interval"] = max(steps - 1, 0)


def _config(config: Any, backend: str, method: str, tuned: str) -> tuple[str, Json, dict[str, str]]:
    """The model that a config names, what it says about training, and where in it each field is said."""
    if isinstance(config, str) and config:
        return _without_version(config), {}, {}
    if not isinstance(config, dict):
        raise Invalid(f"config: {shown(config)} must be the name of a model ('namespace/name') or a config object")
    values = flat(config, ())
    named = {name: values.pop(name, None) for name in ("name", "namespace")}
    target = values.pop("target", None)
    for label in LABELS:
        values.pop(label, None)
    options = values.pop("training_options", [])
    spec, fields = apply(_CONFIG[backend], values, "config.", backend)
    if options:
        chosen = _option(options, method, tuned)
        made, of_option = apply(_OPTIONS[backend], chosen, "config.training_options.", backend)
        fields |= of_option
        for section, part in made.items():
            spec[section] = {**spec.get(section, {}), **part}
    model = _reference(named, "config.name") if target is None else _reference(target, "config.target")
    return _without_version(model), spec, fields


def _option(options: Any, method: str, tuned: str) -> Json:
    """The one option for this kind of training, without the words that chose it."""
    offered = [flat(option, (), "config.training_options.") for option in options] if isinstance(options, list) else []
    for option in offered:
        kind = (option.pop("training_type", "sft"), option.pop("finetuning_type", None))
        replicas = option.pop("data_parallel_size", None)
        if kind != (method, tuned):
            continue
        devices = _size(option, "num_gpus") * _size(option, "num_nodes")
        left = devices // (_size(option, "tensor_parallel_size") * _size(option, "pipeline_parallel_size"))
        if replicas not in (None, left):
            raise Invalid(f"config.training_options.data_parallel_size: {shown(replicas)} must be what is left, {left}")
        return option
    raise Invalid(f"config.training_options: none is for training_type {method} with finetuning_type {tuned}")


def _size(option: Json, name: str) -> int:
    size = option.get(name, 1)
    if not isinstance(size, int) or size < 1:
        raise Invalid(f"config.training_options.{name}: {shown(size)} must be a whole number above 0")
    return size


def _dataset(dataset: Any) -> str:
    if dataset is None:
        raise Invalid("dataset: is missing; name a fileset, as in {name: my-rows, namespace: default}")
    url = dataset.get("files_url") if isinstance(dataset, dict) else None
    if url is None:
        return _reference(dataset, "dataset")
    scheme, _, path = str(url).partition("hf://datasets/")
    if scheme or path.count("/") != 1:
        raise Invalid(f"dataset.files_url: '{shown(url)}' must be hf://datasets/namespace/name")
    named = {key: value for key, value in dataset.items() if key != "files_url" and value is not None}
    if named and _reference(named, "dataset") not in (path, path.partition("/")[2]):
        raise Invalid(
            f"dataset.files_url: '{shown(url)}' is not the fileset that name and namespace give; leave one out"
        )
    return path


def _output(output: Any, workspace: Any, model: str) -> str:
    """The name without its version; its namespace must be one that results go to."""
    namespace, slash, name = _without_version(output).rpartition("/")
    homes = {workspace or DEFAULT_WORKSPACE, DEFAULT_WORKSPACE, model.rpartition("/")[0]}
    if slash and namespace not in homes:
        raise Invalid(
            f"output_model: '{output}' must be in the job's namespace ({workspace or DEFAULT_WORKSPACE}), or in the "
            "base model's, where adapters go"
        )
    return name


def _integrations(trackers: Any) -> Json:
    """A list of trackers as the dialects' block; only Weights & Biases was ever one."""
    found: Json = {}
    for tracker in trackers if isinstance(trackers, list) else [trackers]:
        known = isinstance(tracker, dict) and tracker.get("type") == "wandb" and not tracker.keys() - {"type", "wandb"}
        if not known or not isinstance(tracker.get("wandb") or {}, dict):
            raise Invalid(f"{shown(tracker)} must be {{type: wandb, wandb: {{project: ...}}}}")
        found["wandb"] = tracker.get("wandb") or {}
    return found


def _reference(value: Any, field: str) -> str:
    """`name` or `namespace/name`, given as such or as an object."""
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise Invalid(f"{field}: {shown(value)} must be 'namespace/name' or {{name: ..., namespace: ...}}")
    if odd := [key for key, each in value.items() if key not in ("name", "namespace") and each is not None]:
        raise Invalid(f"{field}.{odd[0]}: has no counterpart; give name and namespace")
    namespace = value.get("namespace")
    return f"{namespace}/{value['name']}" if namespace else str(value["name"])


def _without_version(reference: Any) -> str:
    if not isinstance(reference, str):
        raise Invalid(f"{shown(reference)} must be 'namespace/name'")
    return reference.partition("@")[0]
