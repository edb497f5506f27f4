"""Automodel spec + model facts -> Plan: every decision of a run that does not depend on counting tokens.

Pure: no network, clock, randomness or torch. Called by `control.jobs.submit`; what cannot be lowered is refused here,
lawful but unbuilt values last of all.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from tunesmith.errors import Invalid, NotBuilt
from tunesmith.handoff.capabilities import CAPABILITIES
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
    SchedulePart,
    Stop,
)
from tunesmith.planning.facts import TRAINABLE_FAMILIES, Linear, ModelFacts
from tunesmith.planning.submission import Finetuning, Lowered, Named, Needs, Result, SecretUse, Written
from tunesmith.spec.automodel import (
    AutomodelJobInput,
    AutomodelJobOutput,
    AutomodelSpec,
    Lora,
    Optimizer,
    OutputResponse,
    Schedule,
)
from tunesmith.spec.base import DeploymentParams, leaf

__all__ = ["Lowered", "canonical", "deployment", "lower", "named", "needs", "result", "secrets", "targets"]

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
    if tuned == "lora" and spec.training.lora and spec.training.lora.merge:
        tuned = "lora_merged"
    return Result(
        name=spec.output.name if spec.output else None,
        description=spec.output.description if spec.output else None,
        kind="adapter" if tuned == "lora" else "model",
        finetuning_type=tuned,
    )


def canonical(spec: AutomodelJobInput, name: str) -> AutomodelJobOutput:
    """The spec as it runs, its result under `name`."""
    made = result(spec)
    output = OutputResponse(name=name, type=made.kind, fileset=name, description=made.description)
    return AutomodelJobOutput.model_validate({**spec.model_dump(exclude={"output"}), "output": output})


def needs(spec: AutomodelSpec) -> Needs:
    """Devices over all nodes."""
    p = spec.parallelism
    return Needs(p.num_nodes * p.num_gpus_per_node, p.num_nodes, profile=spec.training.execution_profile)


def secrets(spec: AutomodelSpec) -> tuple[SecretUse, ...]:
    """What the trackers' keys are called."""
    key = leaf(spec, "integrations.wandb.api_key_secret")
    return (SecretUse("WANDB_API_KEY", key, "spec.integrations.wandb.api_key_secret"),) if key else ()


def deployment(spec: AutomodelSpec) -> str | DeploymentParams | None:
    """What to deploy when the job is done."""
    return spec.deployment_config


def lower(
    spec: AutomodelSpec,
    facts: ModelFacts,
    *,
    run: str,
    model: str,
    chat_template: str = "",
    teacher: ModelFacts | None = None,  # noqa: ARG001 distillation is not built
    devices_here: int | None = None,  # noqa: ARG001 more than one device is not built
) -> Lowered:
    """As `dialects.Lower` says."""
    _refuse_what_cannot_be_trained(facts, model)
    _refuse_what_is_not_built(spec)
    lora = spec.training.lora or Lora()
    limit = min(spec.training.max_seq_length, facts.context_size or spec.training.max_seq_length)
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
        ),
        adapter=LoraPart(rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, modules=targets(facts.linears, lora)),
        optimizer=_optimizer(spec.optimizer),
        schedule=SchedulePart(
            stop=_stop(spec.schedule),
            validate_at=_cadence(spec.schedule),
            rows_per_step=spec.batch.global_batch_size,
            tokens_per_pass=spec.batch.micro_batch_size * limit,
            seed=seed,
        ),
    )
    return Lowered(plan, tuple(_warnings(spec, facts)))


def targets(linears: tuple[Linear, ...], lora: Lora) -> tuple[str, ...]:
    """Full names of the modules to adapt; Invalid when a pattern matches nothing or nothing is left.

    A pattern is a module's full name, the end of one (`self_attn.q_proj`, `q_proj`), or a glob over either (`*proj`).
    """
    names = [linear.name for linear in linears]
    last_names = sorted({name.rpartition(".")[2] for name in names})
    for field, patterns in (("target_modules", lora.target_modules), ("exclude_modules", lora.exclude_modules)):
        for pattern in patterns or ():
            if not any(_matches(name, pattern) for name in names):
                raise Invalid(
                    f"training.lora.{field}: '{pattern}' matches no linear layer of this model; "
                    f"its layers end in {', '.join(last_names)}"
                )
    chosen = tuple(
        name
        for name in names
        if (lora.target_modules is None or any(_matches(name, pattern) for pattern in lora.target_modules))
        and not any(_matches(name, pattern) for pattern in lora.exclude_modules or ())
    )
    if not chosen:
        raise Invalid(
            f"training.lora: target_modules {lora.target_modules} without exclude_modules {lora.exclude_modules} "
            "leaves nothing to train; name fewer exclusions"
        )
    return chosen


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _refuse_what_cannot_be_trained(facts: ModelFacts, model: str) -> None:
    if facts.is_reranker:
        raise Invalid(
            f"model: {model} ({facts.checkpoint_model_name}) scores texts (a reranker or classifier) and cannot be "
            "fine-tuned; to rank by meaning, take an embedding model, else a causal language model"
        )
    if facts.is_embedding:
        raise NotBuilt(
            f"model: {model} ({facts.checkpoint_model_name}) is taken for an embedding model, by its name, files or "
            "its class, and training one is not built yet; take a causal language model, or register it by another name"
        )
    if facts.family not in TRAINABLE_FAMILIES:
        known = ", ".join(sorted(TRAINABLE_FAMILIES))
        raise NotBuilt(f"model: family '{facts.family}' of {model} cannot be trained yet; families built: {known}")
    if facts.quantization:
        raise NotBuilt(
            f"model: {model} is quantised ({facts.quantization}), and training on such weights is not built yet; "
            "take the unquantised checkpoint"
        )


def _refuse_what_is_not_built(spec: AutomodelSpec) -> None:
    for capability in CAPABILITIES:
        if capability.dialect != "automodel":
            continue
        value = leaf(spec, capability.field)
        if value not in capability.values:
            built = " or ".join("null" if each is None else str(each) for each in capability.values)
            shown = value if isinstance(value, str | int | float | bool) else "a value"
            raise NotBuilt(f"{capability.field}: {shown} is not built yet; use {built}")


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


# Fields without a meaning in the regime that runs: a value other than the default is said aloud, never dropped.
_IDLE_FOR_SFT = (
    "training.teacher_model",
    "training.distillation_ratio",
    "training.distillation_temperature",
    "training.teacher_precision",
    "training.offload_teacher",
)


def _warnings(spec: AutomodelSpec, facts: ModelFacts) -> list[str]:
    plain = type(spec.training)()
    said = []
    if facts.context_size and spec.training.max_seq_length > facts.context_size:
        said.append(
            f"training.max_seq_length ({spec.training.max_seq_length}) is above the model's context "
            f"({facts.context_size}); rows are cut at {facts.context_size} tokens"
        )
    said += [
        f"{path}: has no meaning for training_type 'sft' and is not used"
        for path in _IDLE_FOR_SFT
        if leaf(spec, path) != leaf(plain, path.removeprefix("training."))
    ]
    if spec.batch.sequence_packing_max_samples != type(spec.batch)().sequence_packing_max_samples:
        said.append("batch.sequence_packing_max_samples: has no meaning without batch.sequence_packing and is not used")
    if spec.training.lora and not spec.training.lora.use_triton:
        said.append("training.lora.use_triton: this engine has no Triton kernels; false changes nothing")
    if spec.parallelism.expert_parallel_size is not None:
        said.append("parallelism.expert_parallel_size: has no meaning for a model without experts and is not used")
    if spec.parallelism.sequence_parallel:
        said.append("parallelism.sequence_parallel: has no meaning with tensor_parallel_size 1 and is not used")
    if spec.name is not None:
        said.append("name: the spec's own name is a label without effect; the job's name is given beside the spec")
    return said
