"""Jobs and models as the older customization service would show them. Pure: what is read and when is `legacy_jobs`'s.

Counters come from the status details. An epoch is completed when its last step is, so the percentage moves by epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from typing import Any

from tunesmith.api.base import JsonObject
from tunesmith.api.jobs import TRAINING, LogLine, Step
from tunesmith.api.legacy import (
    ConfigSnapshot,
    ContainerEntry,
    ContainerEvent,
    ContainerLogs,
    JobLogError,
    JobWarning,
    LegacyConfig,
    LegacyJob,
    LegacyJobStatus,
    LegacyMetrics,
    LegacyTarget,
    MetricPoint,
    MetricSeries,
    StatusLog,
    TrainingOption,
)
from tunesmith.api.models import Model
from tunesmith.handoff.base import COMPUTED
from tunesmith.handoff.capabilities import CAPABILITIES
from tunesmith.spec.legacy import AUTOMODEL, DPO, GRPO
from tunesmith.spec.translation import Rule, nested
from tunesmith.store.legacy_jobs import UNSLOTH_BATCH, WORDS, SeenJob

Stamps = Mapping[tuple[str, int], float]
"""Series and step -> when it was reported, in seconds since 1970."""

_MIXED = {"bf16": "bf16-mixed", "fp8": "fp8-mixed"}
_TARGET_STATUS = {"completed": "ready", "given": "ready", "failed": "failed", "pending": "pending"}
DEFAULT_LENGTH = 2048
"""Tokens a row may have where a job says nothing."""

_UNSLOTH = {
    "training_type": "training.training_type",
    "finetuning_type": "training.finetuning_type",
    "epochs": "schedule.epochs",
    "max_steps": "schedule.max_steps",
    "seed": "schedule.seed",
    "warmup_steps": "schedule.warmup_steps",
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "adam_beta1": "optimizer.adam_beta1",
    "adam_beta2": "optimizer.adam_beta2",
    "sequence_packing_enabled": "dataset.packing",
    "lora.adapter_dim": "training.lora.rank",
    "lora.alpha": "training.lora.alpha",
    "lora.adapter_dropout": "training.lora.dropout",
    "lora.target_modules": "training.lora.target_modules",
}
_PLACES: Mapping[str, Mapping[str, str]] = {
    "automodel": {
        "training_type": "training.training_type",
        "max_seq_length": "training.max_seq_length",
        "precision": "training.precision",
        "micro_batch_size": "batch.micro_batch_size",
        "epochs": "schedule.epochs",
        "degrees": "parallelism",
        "prompt_template": "dataset.prompt_template",
    },
    "rl": {
        "training_type": "training.type",
        "max_seq_length": "training.max_seq_length",
        "micro_batch_size": "training.micro_batch_size",
        "epochs": "training.epochs",
        "degrees": "training.parallelism",
    },
    "unsloth": {
        "training_type": "training.training_type",
        "max_seq_length": "model.max_seq_length",
        "precision": "hardware.precision",
        "micro_batch_size": "batch.per_device_train_batch_size",
        "epochs": "schedule.epochs",
    },
}
"""Where a backend's spec has what all of them have."""


# -- jobs ------------------------------------------------------------------------------------------------------------


def job(seen: SeenJob, at: datetime, stamps: Stamps | None = None) -> LegacyJob:
    """The job at this moment."""
    ours, asked = seen.job, seen.asked or {}
    namespace, _, name = seen.dataset.partition("/")
    return LegacyJob(
        id=ours.id,
        name=ours.name,
        namespace=ours.workspace,
        description=ours.description,
        project=ours.project,
        created_at=ours.created_at,
        updated_at=_updated_at(seen),
        custom_fields=ours.custom_fields or {},
        ownership=ours.ownership,
        config=asked.get("config") or seen.model,
        dataset=asked.get("dataset") or {"name": name, "namespace": namespace},
        hyperparameters=hyperparameters(seen),
        integrations=_integrations(ours.spec),
        output_model=seen.output,
        status=WORDS[ours.status],
        status_details=status(seen, at, stamps),
        config_snapshot=snapshot(seen),
        warnings=[JobWarning(message=each) for each in ours.status_details.get("warnings", [])],
    )


def hyperparameters(seen: SeenJob) -> JsonObject:
    """All that the older call has a word for, with what was filled in."""
    spec = seen.job.spec
    if seen.backend == "unsloth":
        rows, times = (_leaf(spec, f"batch.{name}") for name in UNSLOTH_BATCH)
        values = {name: _leaf(spec, path) for name, path in _UNSLOTH.items()} | {"batch_size": rows * times}
    elif seen.backend == "rl":
        values = _by(GRPO if _leaf(spec, "training.type") == "grpo" else DPO, spec)
    else:
        style = {"cosine": "with_cosine_annealing", "constant": "with_flat_lr"}.get(spec["optimizer"]["lr_decay_style"])
        optimizer = f"{spec['optimizer']['optimizer'].lower()}_{style}" if style else None
        teacher = _leaf(spec, "training.teacher_model")
        values = _by(AUTOMODEL, spec) | {"optimizer": optimizer, "distillation.teacher": teacher}
    return nested({name: value for name, value in values.items() if value is not None} | {"log_every_n_steps": 1})


def snapshot(seen: SeenJob) -> ConfigSnapshot:
    """The base model and the one way in which this job trains it."""
    spec, places = seen.job.spec, _PLACES[seen.backend]
    degrees: JsonObject = _leaf(spec, places["degrees"]) if "degrees" in places else {}
    nodes, gpus = degrees.get("num_nodes", 1), degrees.get("num_gpus_per_node", 1)
    tensor, pipeline = degrees.get("tensor_parallel_size", 1), degrees.get("pipeline_parallel_size", 1)
    precision = _leaf(spec, places.get("precision", "")) or seen.job.status_details.get("compute")
    return ConfigSnapshot(
        base_model=seen.model,
        max_seq_length=_leaf(spec, places["max_seq_length"]),
        precision=precision and _MIXED.get(precision, precision),
        training_option=TrainingOption(
            training_type=_leaf(spec, places["training_type"]),
            finetuning_type=_leaf(spec, "training.finetuning_type"),
            num_gpus=gpus,
            num_nodes=nodes,
            tensor_parallel_size=tensor,
            pipeline_parallel_size=pipeline,
            data_parallel_size=nodes * gpus // (tensor * pipeline * degrees.get("context_parallel_size", 1)),
            expert_model_parallel_size=degrees.get("expert_parallel_size"),
            use_sequence_parallel=degrees.get("sequence_parallel", False),
            micro_batch_size=_leaf(spec, places["micro_batch_size"]),
        ),
        prompt_template=_leaf(spec, places.get("prompt_template", "")),
    )


def status(seen: SeenJob, at: datetime, stamps: Stamps | None = None) -> LegacyJobStatus:
    """How the job is doing at this moment."""
    ours, details = seen.job, seen.job.status_details
    training = next((step for step in ours.steps if step.name == TRAINING), None)
    steps, an_epoch = int(details.get("step") or 0), details.get("steps_per_epoch")
    completed = steps // an_epoch if an_epoch else 0
    epochs = max(_leaf(ours.spec, _PLACES[seen.backend]["epochs"]), details.get("num_epochs") or 0)
    series = details.get("metrics") or {}
    looked_at = [point for point in series.get("val_loss", []) if point["value"] is not None]
    best = min(looked_at, key=lambda point: point["value"], default=None)
    end = _updated_at(seen) if ours.status.final else at
    return LegacyJobStatus(
        created_at=training.created_at if training else ours.created_at,
        updated_at=_updated_at(seen),
        status=WORDS[ours.status],
        percentage_done=min(100.0, 100.0 * completed / epochs),
        epochs_completed=completed,
        steps_completed=steps,
        steps_per_epoch=an_epoch,
        best_epoch=best and best["epoch"],
        elapsed_time=max(0.0, (end - training.created_at).total_seconds()) if training else 0.0,
        train_loss=details.get("train_loss"),
        val_loss=details.get("val_loss"),
        metrics=LegacyMetrics(
            metrics=MetricSeries(
                train_loss=_points(series, "train_loss", stamps or {}),
                val_loss=_points(series, "val_loss", stamps or {}),
            )
        ),
        status_logs=_status_logs(seen),
    )


def container_logs(seen: SeenJob, lines: Sequence[LogLine]) -> ContainerLogs:
    """What the processes said, by step."""
    error = seen.job.error_details
    entries = {
        step.name: ContainerEntry(
            events=[_event(step)],
            logs={step.name: "\n".join(line.message for line in lines if line.job_step == step.name)},
            status={"phase": WORDS[step.status]},
            object=f"{seen.job.name}/{step.name}",
        )
        for step in seen.job.steps
    }
    if not error:
        return ContainerLogs(entries=entries)
    said = JobLogError(
        message=error["message"],
        explanation=error.get("detail") or None,
        exception_type=error.get("type"),
        timestamp=_updated_at(seen).isoformat(timespec="microseconds"),
    )
    return ContainerLogs(entries=entries, error=said)


def _by(rules: Mapping[str, Rule], spec: JsonObject) -> JsonObject:
    """The hyperparameters that the older call's table puts straight into the spec."""
    begin = "hyperparameters."
    return {
        path.removeprefix(begin): _leaf(spec, rule)
        for path, rule in rules.items()
        if isinstance(rule, str) and path.startswith(begin)
    }


def _integrations(spec: JsonObject) -> list[JsonObject] | None:
    wandb = _leaf(spec, "integrations.wandb")
    if wandb is None:
        return None
    shown = {name: wandb[name] for name in ("project", "entity", "notes", "tags") if wandb.get(name) is not None}
    return [{"type": "wandb", "wandb": shown}]


def _points(series: Mapping[str, Any], name: str, stamps: Stamps) -> list[MetricPoint]:
    return [
        MetricPoint(step=point["step"], value=point["value"], timestamp=_stamp(stamps.get((name, point["step"]))))
        for point in series.get(name, [])
    ]


def _stamp(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _status_logs(seen: SeenJob) -> list[StatusLog]:
    ours = seen.job
    told = [StatusLog(updated_at=ours.created_at, message="created")]
    for step in ours.steps:
        detail = (step.error_details or {}).get("message") or step.status_details.get("phase")
        told.append(StatusLog(updated_at=step.updated_at, message=f"{step.name}: {WORDS[step.status]}", detail=detail))
    if ours.status.final:
        why = (ours.error_details or {}).get("message")
        told.append(StatusLog(updated_at=_updated_at(seen), message=WORDS[ours.status], detail=why))
    return told


def _event(step: Step) -> ContainerEvent:
    why = (step.error_details or {}).get("message")
    return ContainerEvent(
        type="Warning" if why else "Normal",
        reason=WORDS[step.status],
        message=why or f"{step.name} is {WORDS[step.status]}",
        first_seen=_seconds(step.created_at),
        last_seen=_seconds(step.updated_at),
    )


def _seconds(at: datetime) -> int:
    return int(at.replace(tzinfo=UTC).timestamp())


def _updated_at(seen: SeenJob) -> datetime:
    """The job's row is not touched by what its steps do."""
    return max(seen.job.updated_at, *(step.updated_at for step in seen.job.steps), seen.job.created_at)


def _leaf(spec: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for name in path.split("."):
        spec = spec.get(name) if isinstance(spec, dict) else None
    return spec


# -- models ----------------------------------------------------------------------------------------------------------


def offered(field: str, words: Sequence[str]) -> tuple[str, ...]:
    """Of these words for `field` of automodel, those that are built."""
    built = next((row.values for row in CAPABILITIES if (row.dialect, row.field) == ("automodel", field)), words)
    return tuple(word for word in words if word in built)


def options() -> list[TrainingOption]:
    """Every way to train that is built."""
    methods = offered("training.training_type", ("sft", "distillation"))
    tunings = offered("training.finetuning_type", ("lora", "lora_merged", "all_weights"))
    return [TrainingOption(training_type=method, finetuning_type=each) for method, each in product(methods, tunings)]


def config(model: Model) -> LegacyConfig:
    """A model with the ways to train it."""
    length = model.spec.context_size if model.spec else None
    return LegacyConfig(
        **_common(model),
        max_seq_length=min(DEFAULT_LENGTH, length or DEFAULT_LENGTH),
        training_options=options(),
        training_precision="bf16-mixed",
        target=f"{model.workspace}/{model.name}",
    )


def target(model: Model) -> LegacyTarget:
    """A model as something to be trained."""
    state = model.custom_fields.get("spec_status")
    precision = model.spec.precision if model.spec else "bf16"
    return LegacyTarget(
        **_common(model),
        id=model.id,
        base_model=model.base_model or model.name,
        num_parameters=model.spec.base_num_parameters if model.spec else 0,
        precision=COMPUTED.get(precision, precision),
        model_path=model.fileset or "",
        status=_TARGET_STATUS.get(str(state), "created"),
    )


def _common(model: Model) -> dict[str, Any]:
    same = ("name", "description", "project", "created_at", "updated_at", "ownership")
    own = ("spec_status", "spec_error")
    fields = {key: value for key, value in model.custom_fields.items() if key not in own}
    return {name: getattr(model, name) for name in same} | {"namespace": model.workspace, "custom_fields": fields}
