"""The grammars a job may be written in, by the name of their backend."""

from __future__ import annotations

from tunesmith.spec.automodel import AutomodelJobInput
from tunesmith.spec.base import Spec
from tunesmith.spec.rl import RlJobInput
from tunesmith.spec.unsloth import UnslothJobInput

GRAMMARS: dict[str, type[Spec]] = {
    "automodel": AutomodelJobInput,
    "unsloth": UnslothJobInput,
    "rl": RlJobInput,
}
