"""Rl spec + model facts -> Plan. No method of this dialect can be trained yet, so all rules speak, and then it ends.

Pure: no network, clock, randomness or torch.
"""

from __future__ import annotations

from typing import NoReturn

from tunesmith.planning.facts import ModelFacts
from tunesmith.planning.parallelism import refuse_more_than_here
from tunesmith.planning.rules import (
    refuse_embedding,
    refuse_models_without_answers,
    refuse_quantised,
    refuse_unbuilt,
    targets,
    tracker_secrets,
    trackers,
)
from tunesmith.planning.submission import Finetuning, Named, Needs, Result, SecretUse, Written
from tunesmith.spec.base import DeploymentParams
from tunesmith.spec.parts import Lora
from tunesmith.spec.rl import RlJobInput, RlJobOutput, RlOutputResponse, RlSpec


def named(spec: RlSpec) -> Named:
    """What the spec names, as written; validation rows lie in the same fileset."""
    return Named(model=Written(spec.model, "spec.model"), training=Written(spec.dataset, "spec.dataset"))


def result(spec: RlJobInput | RlJobOutput) -> Result:
    """What the job makes: an adapter for lora without merge, else a model."""
    tuned: Finetuning = spec.training.finetuning_type
    merged = tuned == "lora" and not spec.training.makes_adapter
    return Result(
        name=spec.output.name if spec.output else None,
        description=spec.output.description if spec.output else None,
        kind="adapter" if spec.training.makes_adapter else "model",
        finetuning_type="lora_merged" if merged else tuned,
    )


def canonical(spec: RlJobInput, name: str) -> RlJobOutput:
    """The spec as it runs, its result under `name`."""
    made = result(spec)
    output = RlOutputResponse(name=name, type=made.kind, fileset=name, description=made.description)
    return RlJobOutput.model_validate({**spec.model_dump(exclude={"output"}), "output": output})


def needs(spec: RlSpec) -> Needs:
    """Devices over all nodes."""
    asked = spec.training.parallelism
    return Needs(asked.devices, asked.num_nodes, profile=spec.training.execution_profile)


def secrets(spec: RlSpec) -> tuple[SecretUse, ...]:
    """What the trackers' keys are called."""
    return tracker_secrets(spec.integrations)


def deployment(spec: RlSpec) -> str | DeploymentParams | None:
    """What to deploy when the job is done."""
    return spec.deployment_config


def lower(
    spec: RlSpec,
    facts: ModelFacts,
    *,
    run: str,  # noqa: ARG001 no method is built
    model: str,
    name: str = "",
    chat_template: str = "",  # noqa: ARG001 no method is built
    teacher: ModelFacts | None = None,  # noqa: ARG001 this dialect has no teacher
    devices_here: int | None = None,
) -> NoReturn:
    """As `dialects.Lower` says; always a refusal."""
    training = spec.training
    trackers(spec.integrations, name)
    refuse_models_without_answers(facts, model, "model")
    refuse_embedding(facts, model, "model", "it writes no answers that could be preferred or rewarded")
    if training.finetuning_type == "all_weights":
        refuse_quantised(facts, model, "training.finetuning_type")
    else:
        lora = training.lora or Lora()
        targets(facts.linears, lora.target_modules, lora.exclude_modules, "training.lora")
    refuse_more_than_here(
        "training.parallelism.num_gpus_per_node * num_nodes", training.parallelism.devices, devices_here
    )
    refuse_unbuilt("rl", spec)
    raise AssertionError(f"training.type {training.type} stands in the table of capabilities and has no plan here")
