"""Rules that every dialect has: which models can be trained, which modules adapted, and what is not built yet."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from tunesmith.errors import Invalid, NotBuilt
from tunesmith.handoff.capabilities import CAPABILITIES, TRAINED_FAMILIES
from tunesmith.handoff.plan import MlflowPart, TrackersPart, WandbPart
from tunesmith.planning.facts import TRAINABLE_FAMILIES, Linear, ModelFacts
from tunesmith.planning.submission import SecretUse
from tunesmith.spec.base import Integrations, MlflowIntegration, Spec, WandbIntegration, leaf
from tunesmith.spec.parts import Lora
from tunesmith.spec.unsloth import UnslothLora

UNPACKED_AT_LOAD = (("gpt_oss", "mxfp4"),)
"""Families and quantisations whose frozen weights are turned into bf16 when they are loaded."""


def refuse_models_without_answers(facts: ModelFacts, model: str, field: str) -> None:
    """Invalid for what scores texts instead of writing them."""
    if facts.is_reranker:
        raise Invalid(
            f"{field}: {model} ({facts.checkpoint_model_name}) scores texts (a reranker or classifier) and cannot be "
            "fine-tuned; to rank by meaning, take an embedding model, else a causal language model"
        )


def refuse_embedding(facts: ModelFacts, model: str, field: str, why: str) -> None:
    """Invalid for what turns texts into vectors; `why` is the rule and the way out."""
    if facts.is_embedding:
        raise Invalid(
            f"{field}: {model} ({facts.checkpoint_model_name}) is taken for an embedding model, by its name, files or "
            f"its class: {why}; if it is none, register it by another name"
        )


def refuse_quantised(facts: ModelFacts, model: str, field: str) -> None:
    """Invalid for training every weight of a checkpoint whose weights are rounded to a few bits."""
    if facts.quantization:
        raise Invalid(
            f"{field}: all_weights cannot be trained on {model}, whose weights are quantised ({facts.quantization}); "
            "take the unquantised checkpoint, or finetuning_type lora"
        )


def refuse_untrainable(facts: ModelFacts, model: str, field: str) -> None:
    """NotBuilt for models that the engine cannot train yet; comes after all rules."""
    if facts.is_embedding:
        raise NotBuilt(
            f"{field}: {model} ({facts.checkpoint_model_name}) is taken for an embedding model, by its name, files or "
            "its class, and training one is not built yet; take a causal language model, or register it by another name"
        )
    if facts.family not in TRAINABLE_FAMILIES:
        known = ", ".join(sorted(TRAINABLE_FAMILIES))
        raise NotBuilt(f"{field}: family '{facts.family}' of {model} cannot be trained yet; families built: {known}")
    if facts.quantization and (facts.family, facts.quantization) not in UNPACKED_AT_LOAD:
        raise NotBuilt(
            f"{field}: {model} is quantised ({facts.quantization}), and training on such weights is not built yet; "
            "take the unquantised checkpoint"
        )


def refuse_unbuilt(dialect: str, spec: Spec) -> None:
    """NotBuilt for all values that the engine cannot honour yet, with those it can; comes after all rules."""
    said, sets = [], []
    for row in CAPABILITIES:
        section = row.field.rpartition(".")[0]
        if row.dialect != dialect or (section and leaf(spec, section) is None):
            continue
        value = leaf(spec, row.field)
        if value in row.values:
            continue
        shown = written(value) if isinstance(value, str | int | float) else "a value"
        built = " or ".join(map(written, row.values)) or row.instead
        said.append(f"{row.field}: {shown} is not built yet; use {built}")
        sets += [f"--set {row.field}={written(row.values[0])}"] if row.values else []
    if said:
        raise NotBuilt(". ".join(said) + (f". What runs today: {' '.join(sets)}" if sets else ""))


def written(value: object) -> str:
    """A value as YAML has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def targets(
    linears: Sequence[Linear], included: Sequence[str] | None, excluded: Sequence[str] | None, field: str
) -> tuple[str, ...]:
    """Full names of the modules to adapt; Invalid when a pattern matches nothing or nothing is left.

    A pattern is a module's full name, the end of one (`self_attn.q_proj`, `q_proj`), or a glob over either (`*proj`);
    `included` None = all. `field` is the path of the block that has target_modules and exclude_modules.
    """
    names = [linear.name for linear in linears]
    last_names = sorted({name.rpartition(".")[2] for name in names})
    for key, patterns in (("target_modules", included), ("exclude_modules", excluded)):
        for pattern in patterns or ():
            if not any(matches(name, pattern) for name in names):
                raise Invalid(
                    f"{field}.{key}: '{pattern}' matches no linear layer of this model that can take an adapter (its "
                    f"embedding, output head and routers take none); its layers end in {', '.join(last_names)}"
                )
    chosen = tuple(
        name
        for name in names
        if (included is None or any(matches(name, pattern) for pattern in included))
        and not any(matches(name, pattern) for pattern in excluded or ())
    )
    if not chosen:
        if included == []:
            raise Invalid(f"{field}.target_modules: [] leaves nothing to train; name some, such as {last_names[0]}")
        raise Invalid(f"{field}.exclude_modules {excluded} leaves nothing to train; name fewer exclusions")
    return chosen


def tracker_secrets(integrations: Integrations | None) -> tuple[SecretUse, ...]:
    """The trackers' keys."""
    key = integrations.wandb.api_key_secret if integrations and integrations.wandb else None
    return (SecretUse("WANDB_API_KEY", key, "spec.integrations.wandb.api_key_secret"),) if key else ()


def trackers(integrations: Integrations | None, job: str) -> TrackersPart:
    """Who else is told the metrics; a run over there has the job's name unless another one is given.

    Invalid for MLflow without an address: there would be nobody to tell.
    """
    asked = integrations or Integrations()
    if asked.mlflow and not asked.mlflow.tracking_uri:
        raise Invalid("integrations.mlflow.tracking_uri: null; name the address of the MLflow tracking server")
    return TrackersPart(
        wandb=WandbPart.model_validate(_given(asked.wandb, job, {"api_key_secret"})) if asked.wandb else None,
        mlflow=MlflowPart.model_validate(_given(asked.mlflow, job, set())) if asked.mlflow else None,
    )


def tracker_warnings(integrations: Integrations | None) -> list[str]:
    """What is said when metrics will not arrive by themselves."""
    if integrations and integrations.wandb and not integrations.wandb.api_key_secret:
        return ["integrations.wandb.api_key_secret: null; without a key the run is kept offline, for `wandb sync`"]
    return []


def _given(tracker: WandbIntegration | MlflowIntegration, job: str, but: set[str]) -> dict[str, object]:
    return {"name": job, **tracker.model_dump(exclude_none=True, exclude=but)}


def packs(asked: bool, facts: ModelFacts) -> bool:
    """Whether rows are put into one sequence: where it is asked for, and none would see another."""
    return asked and TRAINED_FAMILIES[facts.family].packs


def packing_warnings(field: str, asked: bool, facts: ModelFacts) -> list[str]:
    """What is said when rows would see each other in one sequence."""
    if not asked or packs(asked, facts):
        return []
    why = f"some layers of the family {facts.family} carry a state from token to token"
    return [f"{field}: is off: {why}, so rows in one sequence would see each other; each is trained by itself"]


def stored_as(facts: ModelFacts) -> Literal["base", "bfloat16"]:
    """Type of a model's weights that are stored as the base's are; 16 bits where those are quantised."""
    return "bfloat16" if facts.quantization else "base"


def sequence_limit(asked: int, facts: ModelFacts) -> int:
    """Tokens a row may have: as asked, never more than the model's context."""
    return min(asked, facts.context_size or asked)


def context_warnings(field: str, asked: int, facts: ModelFacts) -> list[str]:
    """What is said when the model's context is the smaller."""
    limit = sequence_limit(asked, facts)
    if limit == asked:
        return []
    return [f"{field} ({asked}) is above the model's context ({limit}); rows are cut at {limit} tokens"]


def rank_warnings(lora: Lora | UnslothLora, modules: Sequence[str], facts: ModelFacts) -> list[str]:
    """What is said when a rank that was asked for is above that of every matrix it changes."""
    adapted = set(modules)
    most = max(min(each.in_features, each.out_features) for each in facts.linears if each.name in adapted)
    if lora.rank <= most or lora.rank == type(lora).model_fields["rank"].default:
        return []
    said = f"training.lora.rank ({lora.rank}): is above the smaller side of every matrix it adapts ({most} at most)"
    return [f"{said}: with more than {most} an adapter costs more memory and learns nothing more"]


def label_warnings(name: str | None) -> list[str]:
    """What is said about the spec's own name."""
    if name is None:
        return []
    return ["name: the spec's own name is a label without effect; the job's name is given beside the spec"]


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern (see `targets`) means the module of this name."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
