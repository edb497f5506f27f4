"""Unsloth spec + model facts -> Plan: the same engine as for automodel, with this dialect's numbers and habits.

Its habits: no row is held back for validation, exactly `max_steps` steps, and the last step's weights are the result.
Pure: no network, clock, randomness or torch. Lawful but unbuilt values are refused last of all.
"""

from __future__ import annotations

import math
import re
import sys
from typing import Literal

from tunesmith.errors import Invalid, NotBuilt
from tunesmith.handoff.plan import (
    DataPart,
    Epochs,
    EverySteps,
    FirstOf,
    LoraPart,
    ModelPart,
    OptimizerPart,
    Plan,
    SchedulePart,
    Stop,
)
from tunesmith.planning.facts import ModelFacts
from tunesmith.planning.parallelism import refuse_more_than_here
from tunesmith.planning.rules import (
    context_warnings,
    label_warnings,
    refuse_embedding,
    refuse_models_without_answers,
    refuse_quantised,
    refuse_unbuilt,
    refuse_untrainable,
    sequence_limit,
    targets,
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
    UnslothOutputRequest,
    UnslothOutputResponse,
    UnslothSchedule,
    UnslothSpec,
)

ONLY_AT_THE_END = EverySteps(steps=2**40)
"""More steps than any run has. The engine exports the best of the measured steps: so it measures the last one only."""
UNCLIPPED = sys.float_info.max
"""A norm that no gradient exceeds."""
DECAY: dict[str, Literal["cosine", "linear", "constant"]] = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
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
    lora = spec.training.lora or UnslothLora()
    _refuse_unlawful(spec, facts, model, devices_here)
    told = trackers(spec.integrations, name)
    modules = _modules(lora, facts)
    refuse_untrainable(facts, model, "model.name")
    refuse_unbuilt("unsloth", spec)
    _refuse_unbuilt_pairs(spec, lora)
    limit = sequence_limit(spec.model.max_seq_length, facts)
    batch = spec.batch
    plan = Plan(
        run=run,
        method="sft",
        model=ModelPart(name=model, attention="sdpa", compute="bf16"),
        data=DataPart(
            chat_template=chat_template or facts.chat_template,
            sequence_limit=limit,
            validation="files" if spec.dataset.validation_path else "split",
            split_fraction=0.0,
            seed=spec.schedule.seed,
            text_field=spec.dataset.text_field,
            conversations=spec.dataset.apply_chat_template,
            columns=False,
        ),
        adapter=LoraPart(rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, modules=modules),
        optimizer=_optimizer(spec),
        schedule=SchedulePart(
            stop=_stop(spec.schedule),
            validate_at=ONLY_AT_THE_END,
            rows_per_step=batch.per_device_train_batch_size * batch.gradient_accumulation_steps,
            tokens_per_pass=batch.per_device_train_batch_size * limit,
            seed=spec.schedule.seed,
        ),
        trackers=told,
    )
    return Lowered(plan, (*_warnings(spec, facts), *tracker_warnings(spec.integrations)))


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


def _refuse_unbuilt_pairs(spec: UnslothSpec, lora: UnslothLora) -> None:
    """What depends on two fields, so that it cannot stand in the table of capabilities."""
    seed, ratio = spec.schedule.seed, spec.schedule.warmup_ratio
    if lora.random_state != seed:
        raise NotBuilt(
            f"training.lora.random_state ({lora.random_state}) apart from schedule.seed ({seed}) is not built yet; "
            f"use one number for both: --set training.lora.random_state={seed}"
        )
    if ratio and spec.schedule.max_steps is None:
        raise NotBuilt(
            f"schedule.warmup_ratio: {ratio:g} of a number of steps that only the rows tell is not built yet; "
            "use schedule.warmup_steps, or set schedule.max_steps"
        )


def _modules(lora: UnslothLora, facts: ModelFacts) -> tuple[str, ...]:
    names = targets(facts.linears, lora.target_modules, None, "training.lora")
    asked = lora.layers_to_transform
    if asked is None:
        return names
    wanted = {asked} if isinstance(asked, int) else set(asked)
    field = f"training.lora.layers_to_transform ({', '.join(map(str, sorted(wanted)))})"
    if not wanted or not wanted <= set(range(facts.num_layers)):
        raise Invalid(f"{field}: must name layers of this model, which are 0 to {facts.num_layers - 1}")
    chosen = tuple(name for name in names if _layer(name) in wanted)
    if not chosen:
        raise Invalid(f"{field}: these layers have no {', '.join(lora.target_modules)}; name others, or null for all")
    return chosen


def _layer(module: str) -> int | None:
    number = re.search(r"\.(\d+)\.", f".{module}")
    return int(number[1]) if number else None


def _optimizer(spec: UnslothSpec) -> OptimizerPart:
    asked = spec.optimizer
    return OptimizerPart(
        name="adamw",
        learning_rate=asked.learning_rate,
        min_learning_rate=0.0,
        weight_decay=asked.weight_decay,
        beta1=asked.adam_beta1,
        beta2=asked.adam_beta2,
        eps=asked.adam_epsilon,
        warmup_steps=_warmup(spec.schedule),
        decay=DECAY[spec.schedule.lr_scheduler_type],
        max_grad_norm=asked.max_grad_norm or UNCLIPPED,
    )


def _warmup(asked: UnslothSchedule) -> int:
    if asked.lr_scheduler_type == "constant":
        return 0
    return math.ceil((asked.warmup_ratio or 0) * (asked.max_steps or 0)) or asked.warmup_steps


def _stop(asked: UnslothSchedule) -> Stop:
    if asked.max_steps is None:
        return Epochs(epochs=asked.epochs)
    # An epoch has at least one step, so that as many epochs as steps never end first.
    return FirstOf(epochs=asked.max_steps, steps=asked.max_steps)


def _warnings(spec: UnslothSpec, facts: ModelFacts) -> list[str]:
    schedule, checkpointing = spec.schedule, spec.training.use_gradient_checkpointing
    said = context_warnings("model.max_seq_length", spec.model.max_seq_length, facts)
    if schedule.max_steps is not None and schedule.epochs != 1:
        said.append("schedule.epochs: has no meaning beside schedule.max_steps, which decides, and is not used")
    if schedule.lr_scheduler_type == "constant" and (schedule.warmup_steps or schedule.warmup_ratio):
        field = "warmup_steps" if schedule.warmup_steps else "warmup_ratio"
        said.append(
            f"schedule.{field}: has no meaning for lr_scheduler_type 'constant' and is not used; "
            "constant_with_warmup has one"
        )
    if checkpointing != "unsloth":
        said.append(
            f"training.use_gradient_checkpointing: this engine keeps all activations; {checkpointing} changes nothing"
        )
    return said + label_warnings(spec.name)
