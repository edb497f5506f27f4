"""What is trained: a model with the weights that a step changes, and how the result is laid down as files.

Three kinds, chosen by the plan: adapters on the fast path (`model.lora`), adapters of the kinds that PEFT computes
(`model.variants`), and all weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from tunesmith.errors import EngineError
from tunesmith.handoff.plan import OF_THE_BASE, LoraPart, Plan
from tunesmith.model.lora import LoraLinear, adapt, deltas, names_of, weights_of
from tunesmith.model.noise import Noise, disturb_embeddings, generator_of
from tunesmith.model.norms import write_out_norms
from tunesmith.model.peft_files import write_adapter
from tunesmith.model.recompute import recompute
from tunesmith.model.rounding import round_by_chance


class Student(Protocol):
    """A model and its trained weights."""

    model: nn.Module
    noise: Noise
    """The key that whatever is random in it is drawn from."""
    adapted_modules: int
    """0 where all weights are trained."""
    learning: bool
    """Whether dropout and noise are drawn."""
    in_place: bool
    """Whether its gradients are too large to be held twice, so that threads cannot share a pass's rows."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What is trained, by the names it is saved under, in a fixed order."""
        ...

    def learn(self, learning: bool) -> None:
        """Draw dropout and noise from now on, or stop it."""
        ...

    def write_adapter(self, directory: Path) -> None:
        """The adapter as PEFT's two files. EngineError where all weights are trained."""
        ...

    def add_to(self, model: nn.Module, masters: Mapping[str, Tensor]) -> None:
        """Give a model of the same kind, whose weights are the base's in any type, the trained ones.

        `masters` are the float32 weights by the names of `parameters`; sums are done in float32, and rounded by chance
        to a narrower type.
        """
        ...


def student_of(model: nn.Module, plan: Plan) -> Student:
    """The model, frozen so far, made ready to learn what the plan says."""
    student = _student(model, plan, Noise(plan.schedule.seed))
    if plan.objective.embedding_noise:
        disturb_embeddings(model, plan.objective.embedding_noise, student.noise, lambda: student.learning)
    recompute(model, plan.model.recompute, student.noise)
    return student


def _student(model: nn.Module, plan: Plan, noise: Noise) -> Student:
    part = plan.adapter
    if part is None:
        return Whole(model, noise)
    write_out_norms(model, besides=part.whole_modules)
    if needs_peft(part):
        from tunesmith.model.variants import Variants  # here, because PEFT takes seconds to import

        return Variants(model, part, plan.model.name, noise)
    return Adapters(model, part, plan.model.name, noise)


def needs_peft(part: LoraPart) -> bool:
    """Is it more than y = W x + scale B A x from random start values?"""
    return part.decomposed or part.bias != "none" or bool(part.whole_modules) or part.start in OF_THE_BASE


class Adapters:
    """Plain low-rank adapters beside frozen linear layers."""

    in_place = False

    def __init__(self, model: nn.Module, part: LoraPart, base: str, noise: Noise) -> None:
        self.model, self.noise, self.learning = model, noise, False
        self._part, self._base = part, base
        self._module_names = [name for name, _ in model.named_modules()]
        self.adapters: Mapping[str, LoraLinear] = adapt(model, part, noise)
        self.adapted_modules = len(self.adapters)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return names_of(self.adapters)

    def learn(self, learning: bool) -> None:
        self.learning = learning
        for adapter in self.adapters.values():
            adapter.train(learning)

    def write_adapter(self, directory: Path) -> None:
        write_adapter(directory, weights_of(self.adapters, self._part, self._base), self._module_names)

    def add_to(self, model: nn.Module, masters: Mapping[str, Tensor]) -> None:  # noqa: ARG002 adapters are masters
        for name, delta_OI in deltas(self.adapters):
            weight = model.get_submodule(name).weight.data
            round_by_chance(weight.float() + delta_OI, weight, generator_of(self.noise.seed, f"{name}/stored"))


class Whole:
    """All weights of a model."""

    in_place = True
    adapted_modules = 0

    def __init__(self, model: nn.Module, noise: Noise) -> None:
        self.model, self.noise, self.learning = model, noise, False
        self._computed = next(model.parameters()).dtype
        model.requires_grad_(True)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return dict(self.model.named_parameters())  # tied ones once, by their first name

    def learn(self, learning: bool) -> None:
        self.learning = learning  # a model's own dropout stays off, as in all recipes of large ones

    def write_adapter(self, directory: Path) -> None:
        raise EngineError(f"{directory.name}: all weights are trained, there is no adapter to write", "InternalError")

    def add_to(self, model: nn.Module, masters: Mapping[str, Tensor]) -> None:
        for name, weight in model.named_parameters():
            if weight.dtype == self._computed:  # as they were validated
                weight.data.copy_(masters[name])
            else:
                round_by_chance(masters[name], weight.data, generator_of(self.noise.seed, f"{name}/stored"))
