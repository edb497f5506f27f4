"""What a dialect says about a spec: what it names, makes, needs, and the plan it is lowered to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from tunesmith.handoff.plan import Plan

Finetuning = Literal["lora", "lora_merged", "all_weights"]


class Written(NamedTuple):
    """A reference as the user wrote it."""

    text: str
    field: str
    """Dotted path with `spec.` in front, for messages."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a spec names; control looks it up."""

    model: Written
    training: Written
    """Fileset with the rows."""
    validation: Written | None = None
    teacher: Written | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a job makes."""

    name: str | None
    """As asked for; None = a name is made out of model and data set."""
    description: str | None
    kind: Literal["adapter", "model"]
    finetuning_type: Finetuning


@dataclass(frozen=True, slots=True)
class Needs:
    """Where a job wants to run."""

    devices: int
    """Over all nodes."""
    nodes: int = 1
    named: tuple[str, ...] = ()
    """Devices to choose among; empty = any."""
    profile: str | None = None
    """Execution profile; None = the machine's default."""


class SecretUse(NamedTuple):
    """A secret that the training process gets as an environment variable."""

    variable: str
    reference: str
    """`name` or `workspace/name`, as written."""
    field: str
    """Dotted path with `spec.` in front, for messages."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """A plan, and what the user should know about it."""

    plan: Plan
    warnings: tuple[str, ...]
