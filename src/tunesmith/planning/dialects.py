"""The dialects in which a job may be asked for, behind one surface: what control knows of any of them.

A dialect is a grammar (`spec/<name>.py`) and a translation (`planning/<name>.py`); this table puts the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tunesmith.planning import automodel, rl, unsloth
from tunesmith.planning.facts import ModelFacts
from tunesmith.planning.submission import Lowered, Named, Needs, Result, SecretUse, Written
from tunesmith.spec.automodel import AutomodelJobInput, AutomodelJobOutput
from tunesmith.spec.base import DeploymentParams, Spec
from tunesmith.spec.rl import RlJobInput, RlJobOutput
from tunesmith.spec.unsloth import UnslothJobInput, UnslothJobOutput

__all__ = ["DIALECTS", "Dialect", "Lowered", "Named", "Needs", "Result", "SecretUse", "Written"]


class Lower(Protocol):
    """A spec on a model with these facts, as a plan; Invalid or NotBuilt name field, value, rule and way out."""

    def __call__(
        self,
        spec: Any,
        facts: ModelFacts,
        *,
        run: str,
        model: str,
        name: str = "",
        chat_template: str = "",
        teacher: ModelFacts | None = None,
        devices_here: int | None = None,
    ) -> Lowered:
        """`run` is the job's id, `name` its name, `model` the base's `workspace/name`, `chat_template` the fileset's
        own ("" = the checkpoint's), `teacher` the facts of `named(spec).teacher`, `devices_here` what this machine has
        (None = not looked at)."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """One dialect. Each function takes an instance of `input` or `output`; all are pure."""

    name: str
    input: type[Spec]
    """A job as the user asks for it."""
    output: type[Spec]
    """The same, filled in: the canonical spec that a job shows."""
    named: Callable[[Any], Named]
    result: Callable[[Any], Result]
    canonical: Callable[[Any, str], Spec]
    """The spec filled in, its result under this name."""
    needs: Callable[[Any], Needs]
    secrets: Callable[[Any], tuple[SecretUse, ...]]
    deployment: Callable[[Any], str | DeploymentParams | None]
    """What to deploy when the job is done."""
    lower: Lower


DIALECTS: dict[str, Dialect] = {
    "automodel": Dialect(
        "automodel",
        AutomodelJobInput,
        AutomodelJobOutput,
        automodel.named,
        automodel.result,
        automodel.canonical,
        automodel.needs,
        automodel.secrets,
        automodel.deployment,
        automodel.lower,
    ),
    "unsloth": Dialect(
        "unsloth",
        UnslothJobInput,
        UnslothJobOutput,
        unsloth.named,
        unsloth.result,
        unsloth.canonical,
        unsloth.needs,
        unsloth.secrets,
        unsloth.deployment,
        unsloth.lower,
    ),
    "rl": Dialect(
        "rl",
        RlJobInput,
        RlJobOutput,
        rl.named,
        rl.result,
        rl.canonical,
        rl.needs,
        rl.secrets,
        rl.deployment,
        rl.lower,
    ),
}
