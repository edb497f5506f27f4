"""Unsloth spec + model facts -> Plan: the same engine as for automodel, with this dialect's numbers and habits.

Its habits: no row is held back for validation, exactly `max_steps` steps, and the last step's weights are the result.
Pure: no network, clock, randomness or torch. Lawful but unbuilt values are refused last of all.
"""

from __future__ import annotations

import sys
from typing import Literal

from tunesmith.errors import Invalid
from tunesmith.handoff.base import STORED, Stored
from tunesmith.handoff.plan import (
    AtTheEnd,
    DataPart,
    EachEpoch,
    Epochs,
    EverySteps,
    FirstOf,
    LoraPart,
    ModelPart,
    ObjectivePart,
    OptimizerPart,
    Plan,
    ResultPart,
    SchedulePart,
    Stop,
)
from tunesmith.planning import variants
from tunesmith.planning.facts import ModelFacts
from tunesmith.planning.parallelism import refuse_more_than_here
from tunesmith.planning.rules import (
    context_warnings,
    label_warnings,
    packing_warnings,
    packs,
    rank_warnings,
    refuse_embedding,
    refuse_models_without_answers,
    refuse_quantised,
    refuse_unbuilt,
    refuse_untrainable,
    sequence_limit,
    tracker_secrets,
    tracker_warnings,
    trackers,
)
from tunesmith.planning.submission import Finetuning, Lowered, Named, Needs, Result, SecretUse, Written
from tunesmith.spec.base import DeploymentParams
from tunesmith.spec.unsloth import (
    UnslothJobInput,
    UnslothJobOutput,
    UnslothLora,
    UnslothOptimizer,
    UnslothOutputRequest,
    UnslothOutputResponse,
    UnslothSchedule,
    UnslothSpec,
)

UNCLIPPED = sys.float_info.max
"""A norm that no gradient exceeds."""
DECAY: dict[str, Literal["cosine", "linear", "constant"]] = {
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
RECOMPUTE: dict[str, Literal["no", "layers", "offloaded"]] = {
    "false": "no",
    "true": "layers",
    "unsloth": "offloaded",
}


def named(spec: UnslothSpec) -> Named:
    """What the spec names, as written."""
    validation = spec.dataset.validation_path
    return Named(
        model=Written(spec.model.name, "spec.model.name"),
        training=Written(spec.dataset.path, "spec.dataset.path"),
        validation=Written(validation, "spec.dataset.validation_path") if validation else None,
    )


def result(spec: UnslothJobInput | UnslothJobOutput) -> Result:
    """What the job makes: an adapter for lora that is not merged, else a model."""
    asked = spec.output or UnslothOutputRequest()
    tuned: Finetuning = spec.training.finetuning_type
    if tuned == "lora" and asked.save_method != "lora":
        tuned = "lora_merged"
    return Result(asked.name, asked.description, "adapter" if tuned == "lora" else "model", tuned)


def canonical(spec: UnslothJobInput, name: str) -> UnslothJobOutput:
    """The spec as it runs, its result under `name`."""
    made = result(spec)
    output = UnslothOutputResponse(
        name=name,
        type=made.kind,
        save_method=spec.output.save_method if spec.output else "lora",
        fileset=name,
        description=made.description,
    )
    return UnslothJobOutput.model_validate({**spec.model_dump(exclude={"output"}), "output": output})


def needs(spec: UnslothSpec) -> Needs:
    """One device, of those that are named."""
    indices = (index.strip() for index in (spec.hardware.gpus or "").split(","))
    return Needs(1, named=tuple(dict.fromkeys(str(int(index)) for index in indices if index)))


def secrets(spec: UnslothSpec) -> tuple[SecretUse, ...]:
    """What the trackers' keys are called."""
    return tracker_secrets(spec.integrations)


def deployment(spec: UnslothSpec) -> str | DeploymentParams | None:
    """What to deploy when the job is done."""
    return spec.deployment_config


def lower(
    spec: UnslothJobInput | UnslothJobOutput,
    facts: ModelFacts,
    *,
    run: str,
    model: str,
    name: str = "",
    chat_template: str = "",
    teacher: ModelFacts | None = None,  # noqa: ARG001 this dialect has no teacher
    devices_here: int | None = None,
) -> Lowered:
    """As `dialects.Lower` says."""
    _refuse_unlawful(spec, facts, model, devices_here)
    told = trackers(spec.integrations, name)
    adapter = _adapter(spec, facts)
    refuse_untrainable(facts, model, "model.name")
    refuse_unbuilt("unsloth", spec)
    limit = sequence_limit(spec.model.max_seq_length, facts)
    batch, schedule = spec.batch, spec.schedule
    plan = Plan(
        run=run,
        method="sft",
        model=ModelPart(
            name=model,
            attention="sdpa",
            compute=spec.hardware.precision,
            recompute=RECOMPUTE[spec.training.use_gradient_checkpointing],
        ),
        data=DataPart(
            chat_template=chat_template or facts.chat_template,
            sequence_limit=limit,
            validation="files" if spec.dataset.validation_path else "split",
            split_fraction=0.0,
            seed=schedule.seed,
            text_field=spec.dataset.text_field,
            conversations=spec.dataset.apply_chat_template,
            columns=False,
            packing=packs(spec.dataset.packing, facts),
        ),
        adapter=adapter,
        optimizer=_optimizer(spec),
        schedule=SchedulePart(
            stop=_stop(schedule),
            validate_at=AtTheEnd() if schedule.eval_steps is None else EverySteps(steps=schedule.eval_steps),
            rows_per_step=batch.per_device_train_batch_size * batch.gradient_accumulation_steps,
            tokens_per_pass=batch.per_device_train_batch_size * limit,
            seed=schedule.seed,
            save_at=EachEpoch() if schedule.save_steps is None else EverySteps(steps=schedule.save_steps),
            log_every=schedule.logging_steps,
        ),
        objective=ObjectivePart(
            label_smoothing=spec.optimizer.label_smoothing_factor,
            embedding_noise=spec.optimizer.neftune_noise_alpha or 0.0,
        ),
        result=ResultPart(form=result(spec).kind, dtype=_stored(spec), step="last"),
        trackers=told,
    )
    return Lowered(plan, (*_warnings(spec, facts, adapter), *tracker_warnings(spec.integrations)))


def _refuse_unlawful(spec: UnslothSpec, facts: ModelFacts, model: str, devices_here: int | None) -> None:
    refuse_models_without_answers(facts, model, "model.name")
    refuse_embedding(
        facts,
        model,
        "model.name",
        "Embedding-model SFT is not supported by the unsloth backend; submit the job to automodel",
    )
    if spec.training.finetuning_type == "all_weights":
        refuse_quantised(facts, model, "training.finetuning_type")
    refuse_more_than_here("hardware", 1, devices_here)


def _adapter(spec: UnslothJobInput | UnslothJobOutput, facts: ModelFacts) -> LoraPart | None:
    """None where all weights are trained; Invalid for one that could not be served though it shall be."""
    if spec.training.finetuning_type == "all_weights":
        return None
    alone = result(spec).kind == "adapter"
    part = variants.adapter(spec.training.lora or UnslothLora(), facts, merged=not alone)
    if alone and spec.deployment_config is not None and (more := variants.unserved(part)):
        raise Invalid(
            f"deployment_config: the embedded engine serves plain LoRA adapters, not one with {' and '.join(more)}; "
            "merge it into its base (output.save_method merged_16bit), or leave deployment_config out"
        )
    return part


def _optimizer(spec: UnslothSpec) -> OptimizerPart:
    asked, schedule = spec.optimizer, spec.schedule
    rises = schedule.lr_scheduler_type != "constant"
    return OptimizerPart(
        name="sgd" if asked.optim == "sgd" else "adamw",
        learning_rate=asked.learning_rate,
        min_learning_rate=0.0,
        weight_decay=asked.weight_decay,
        beta1=asked.adam_beta1,
        beta2=asked.adam_beta2,
        eps=asked.adam_epsilon,
        warmup_steps=schedule.warmup_steps if rises else 0,
        warmup_ratio=(schedule.warmup_ratio or 0.0) if rises else 0.0,
        decay=DECAY[schedule.lr_scheduler_type],
        cycles=schedule.cycles,
        max_grad_norm=asked.max_grad_norm or UNCLIPPED,
    )


def _stored(spec: UnslothSpec) -> Stored:
    asked = spec.model.dtype
    return STORED[spec.hardware.precision] if asked == "auto" else asked


def _stop(asked: UnslothSchedule) -> Stop:
    if asked.max_steps is None:
        return Epochs(epochs=asked.epochs)
    # An epoch has at least one step, so that as many epochs as steps never end first.
    return FirstOf(epochs=asked.max_steps, steps=asked.max_steps)


def _warnings(spec: UnslothJobInput | UnslothJobOutput, facts: ModelFacts, adapter: LoraPart | None) -> list[str]:
    """Fields without a meaning in this regime that differ from their default: said aloud, never dropped."""
    schedule = spec.schedule
    said = context_warnings("model.max_seq_length", spec.model.max_seq_length, facts)
    said += packing_warnings("dataset.packing", spec.dataset.packing, facts)
    if schedule.max_steps is not None and schedule.epochs != 1:
        said.append("schedule.epochs: has no meaning beside schedule.max_steps, which decides, and is not used")
    if schedule.lr_scheduler_type == "constant" and (schedule.warmup_steps or schedule.warmup_ratio):
        field = "warmup_steps" if schedule.warmup_steps else "warmup_ratio"
        said.append(
            f"schedule.{field}: has no meaning for lr_scheduler_type 'constant' and is not used; "
            "constant_with_warmup has one"
        )
    if spec.optimizer.optim == "sgd":
        said += [
            f"optimizer.{name}: has no meaning for optim 'sgd' and is not used"
            for name in ("adam_beta1", "adam_beta2", "adam_epsilon")
            if getattr(spec.optimizer, name) != UnslothOptimizer.model_fields[name].default
        ]
    if adapter is not None:
        said += _adapter_warnings(spec, facts, adapter)
    return said + label_warnings(spec.name)


def _adapter_warnings(spec: UnslothJobInput | UnslothJobOutput, facts: ModelFacts, adapter: LoraPart) -> list[str]:
    asked = spec.training.lora or UnslothLora()
    said = variants.warnings(asked, adapter, facts) + rank_warnings(asked, adapter.modules, facts)
    if result(spec).kind == "model":
        return said
    if _stored(spec) != STORED[spec.hardware.precision]:
        said.append(
            f"model.dtype: '{spec.model.dtype}' has no meaning for an adapter and is not used: its base is held in "
            f"hardware.precision ({spec.hardware.precision}), and it is stored in float32"
        )
    if more := variants.unserved(adapter):
        said.append(
            f"{' and '.join(more)}: the embedded engine serves plain LoRA adapters, and not this one; merged into its "
            "base (output.save_method merged_16bit) it is a model, which can be served"
        )
    return said
