"""Automodel spec + model facts -> Plan: every decision of a run that does not depend on counting tokens.

Pure: no network, clock, randomness or torch. Called by `control/submission.py`; what cannot be lowered is refused here,
lawful but unbuilt values last of all.
"""

from __future__ import annotations

from tunesmith.data.rows import RowParser, RowRules
from tunesmith.errors import DataError, Invalid
from tunesmith.handoff.plan import (
    Cadence,
    DataPart,
    EachEpoch,
    Epochs,
    EverySteps,
    FirstOf,
    FractionOfEpoch,
    LoraPart,
    ModelPart,
    OptimizerPart,
    Plan,
    ResultPart,
    SchedulePart,
    Stop,
)
from tunesmith.planning.facts import ModelFacts
from tunesmith.planning.pairs import refuse_unequal_pair
from tunesmith.planning.parallelism import refuse_more_than_here, refuse_uneven_experts
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
    stored_as,
    targets,
    tracker_secrets,
    tracker_warnings,
    trackers,
)
from tunesmith.planning.submission import Finetuning, Lowered, Named, Needs, Result, SecretUse, Written
from tunesmith.spec.automodel import (
    AutomodelJobInput,
    AutomodelJobOutput,
    AutomodelSpec,
    Optimizer,
    OutputResponse,
    Schedule,
)
from tunesmith.spec.base import DeploymentParams
from tunesmith.spec.parts import Lora

__all__ = ["Lowered", "canonical", "deployment", "lower", "named", "needs", "result", "secrets", "warnings"]

DEFAULT_SEED = 1111
SPLIT_FRACTION = 0.1
MAX_GRAD_NORM = 1.0
"""The dialect has no field for it; the reference clips at 1."""


def named(spec: AutomodelSpec) -> Named:
    """What the spec names, as written."""
    validation, teacher = spec.dataset.validation, spec.training.teacher_model
    return Named(
        model=Written(spec.model, "spec.model"),
        training=Written(spec.dataset.training, "spec.dataset.training"),
        validation=Written(validation, "spec.dataset.validation") if validation else None,
        teacher=Written(teacher, "spec.training.teacher_model")
        if teacher and spec.training.training_type == "distillation"
        else None,
    )


def result(spec: AutomodelJobInput | AutomodelJobOutput) -> Result:
    """What the job makes: an adapter for lora without merge, else a model."""
    tuned: Finetuning = spec.training.finetuning_type
    merged = tuned == "lora" and not spec.training.makes_adapter
    return Result(
        name=spec.output.name if spec.output else None,
        description=spec.output.description if spec.output else None,
        kind="adapter" if spec.training.makes_adapter else "model",
        finetuning_type="lora_merged" if merged else tuned,
    )


def canonical(spec: AutomodelJobInput, name: str) -> AutomodelJobOutput:
    """The spec as it runs, its result under `name`."""
    made = result(spec)
    output = OutputResponse(name=name, type=made.kind, fileset=name, description=made.description)
    return AutomodelJobOutput.model_validate({**spec.model_dump(exclude={"output"}), "output": output})


def needs(spec: AutomodelSpec) -> Needs:
    """Devices over all nodes."""
    asked = spec.parallelism
    return Needs(asked.devices, asked.num_nodes, profile=spec.training.execution_profile)


def secrets(spec: AutomodelSpec) -> tuple[SecretUse, ...]:
    """What the trackers' keys are called."""
    return tracker_secrets(spec.integrations)


def deployment(spec: AutomodelSpec) -> str | DeploymentParams | None:
    """What to deploy when the job is done."""
    return spec.deployment_config


def lower(
    spec: AutomodelSpec,
    facts: ModelFacts,
    *,
    run: str,
    model: str,
    name: str = "",
    chat_template: str = "",
    teacher: ModelFacts | None = None,
    devices_here: int | None = None,
) -> Lowered:
    """As `dialects.Lower` says."""
    _refuse_unlawful(spec, facts, model, teacher, devices_here)
    told = trackers(spec.integrations, name)
    adapter = _adapter(spec, facts)
    refuse_untrainable(facts, model, "model")
    refuse_unbuilt("automodel", spec)
    limit = sequence_limit(spec.training.max_seq_length, facts)
    seed = DEFAULT_SEED if spec.schedule.seed is None else spec.schedule.seed
    plan = Plan(
        run=run,
        method="sft",
        model=ModelPart(
            name=model,
            attention=spec.training.attn_implementation,
            compute=spec.training.precision or "auto",
        ),
        data=DataPart(
            chat_template=chat_template or facts.chat_template,
            sequence_limit=limit,
            validation="files" if spec.dataset.validation else "split",
            split_fraction=SPLIT_FRACTION,
            seed=seed,
            prompt_template=spec.dataset.prompt_template or "",
            packing=packs(spec.batch.sequence_packing, facts),
            pack_window=spec.batch.sequence_packing_max_samples,
        ),
        adapter=adapter,
        optimizer=_optimizer(spec.optimizer),
        schedule=SchedulePart(
            stop=_stop(spec.schedule),
            validate_at=_cadence(spec.schedule),
            rows_per_step=spec.batch.global_batch_size,
            tokens_per_pass=spec.batch.micro_batch_size * limit,
            seed=seed,
        ),
        result=ResultPart(
            form="adapter" if spec.training.makes_adapter else "model", dtype=stored_as(facts), step="best"
        ),
        trackers=told,
    )
    said = [*warnings(spec, facts), *tracker_warnings(spec.integrations)]
    if spec.training.lora and adapter:
        said += rank_warnings(spec.training.lora, adapter.modules, facts)
    return Lowered(plan, tuple(said))


def _refuse_unlawful(
    spec: AutomodelSpec, facts: ModelFacts, model: str, teacher: ModelFacts | None, devices_here: int | None
) -> None:
    refuse_models_without_answers(facts, model, "model")
    if spec.dataset.prompt_template:
        try:
            RowParser(RowRules(prompt_template=spec.dataset.prompt_template))
        except DataError as error:
            raise Invalid(error.message) from None
    if spec.training.makes_adapter:
        refuse_embedding(
            facts,
            model,
            "model",
            "an adapter of one cannot be served by itself; set training.finetuning_type to lora_merged or all_weights",
        )
    if spec.training.finetuning_type == "all_weights":
        refuse_quantised(facts, model, "training.finetuning_type")
    if spec.training.training_type == "distillation":
        refuse_unequal_pair(spec, facts, model, teacher)
    refuse_uneven_experts(spec.parallelism, facts)
    refuse_more_than_here("parallelism.num_gpus_per_node * num_nodes", spec.parallelism.devices, devices_here)


def _adapter(spec: AutomodelSpec, facts: ModelFacts) -> LoraPart | None:
    """None where all weights are trained."""
    if spec.training.finetuning_type == "all_weights":
        return None
    lora = spec.training.lora or Lora()
    modules = targets(facts.linears, lora.target_modules, lora.exclude_modules, "training.lora")
    return LoraPart(rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, modules=modules)


def _optimizer(asked: Optimizer) -> OptimizerPart:
    return OptimizerPart(
        name="adamw" if asked.optimizer == "AdamW" else "adam",
        learning_rate=asked.learning_rate,
        min_learning_rate=asked.min_learning_rate or 0.0,
        weight_decay=asked.weight_decay,
        beta1=asked.adam_beta1,
        beta2=asked.adam_beta2,
        eps=asked.adam_eps,
        warmup_steps=asked.warmup_steps,
        decay=asked.lr_decay_style,
        max_grad_norm=MAX_GRAD_NORM,
    )


def _stop(asked: Schedule) -> Stop:
    if asked.max_steps is None:
        return Epochs(epochs=asked.epochs)
    return FirstOf(epochs=asked.epochs, steps=asked.max_steps)


def _cadence(asked: Schedule) -> Cadence:
    interval = asked.val_check_interval
    if not interval:
        return EachEpoch()
    return FractionOfEpoch(fraction=interval) if interval <= 1 else EverySteps(steps=int(interval))


_OF_DISTILLATION = (
    "teacher_model",
    "distillation_ratio",
    "distillation_temperature",
    "teacher_precision",
    "offload_teacher",
)


def warnings(spec: AutomodelSpec, facts: ModelFacts) -> list[str]:
    """Fields without a meaning in this regime that differ from their default: said aloud, never dropped."""
    training, spread = spec.training, spec.parallelism
    said = context_warnings("training.max_seq_length", training.max_seq_length, facts)
    if training.training_type == "sft":
        said += [
            f"training.{name}: has no meaning for training_type 'sft' and is not used"
            for name in _OF_DISTILLATION
            if getattr(training, name) != type(training).model_fields[name].default
        ]
    if training.finetuning_type == "all_weights" and training.lora:
        said.append("training.lora: has no meaning for finetuning_type 'all_weights' and is not used")
    said += packing_warnings("batch.sequence_packing", spec.batch.sequence_packing, facts)
    window = type(spec.batch).model_fields["sequence_packing_max_samples"].default
    if not spec.batch.sequence_packing and spec.batch.sequence_packing_max_samples != window:
        said.append("batch.sequence_packing_max_samples: has no meaning without batch.sequence_packing and is not used")
    if training.lora and not training.lora.use_triton:
        said.append("training.lora.use_triton: this engine has no Triton kernels; false changes nothing")
    if spec.optimizer.lr_decay_style == "constant" and spec.optimizer.min_learning_rate is not None:
        said.append("optimizer.min_learning_rate: has no meaning for lr_decay_style 'constant' and is not used")
    if facts.moe is None and spread.expert_parallel_size is not None:
        said.append("parallelism.expert_parallel_size: has no meaning for a model without experts and is not used")
    if spread.sequence_parallel and spread.tensor_parallel_size == 1:
        said.append("parallelism.sequence_parallel: has no meaning with tensor_parallel_size 1 and is not used")
    return said + label_warnings(spec.name)
