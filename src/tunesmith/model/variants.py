"""The kinds of adapters that PEFT computes: decomposed, started from the base's weights, with biases or modules beside.

PEFT puts them into the unmodified transformers model. Its dropout is replaced by ours, its random start values too, so
both are drawn from keys as on the fast path (`model.lora`), and both paths give the same numbers for a plain adapter.
Adapters compute in float32, whatever type the base is in; biases and whole modules in the base's.

With V = W + scale B A, of which each row has a length:

    decomposed (DoRA)    W' = m V / |V|, where m is trained and starts as |W|; |V| is no part of the gradient
    pissa, olora         B A starts as a part of W, which is taken out of W before training; see `_beginning`

Shapes: I inputs, O outputs, r rank.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from tunesmith.errors import EngineError
from tunesmith.handoff.peft import PREFIX, keys_of
from tunesmith.handoff.plan import OF_THE_BASE, LoraPart
from tunesmith.model.lora import scale_of, start_values
from tunesmith.model.noise import Noise, generator_of
from tunesmith.model.peft_files import AdapterWeights, write_adapter
from tunesmith.model.rounding import round_by_chance

ONE = "default"
"""PEFT's name for the only adapter."""
LENGTHS = ".lora_magnitude_vector"


class Variants:
    """A student whose adapters are PEFT's."""

    def __init__(self, model: nn.Module, part: LoraPart, base: str, noise: Noise) -> None:
        """Everything but what the plan names is frozen. EngineError (TrainingConfigError) if the model lacks it."""
        self.model, self.noise, self.learning = model, noise, False
        self.adapted_modules = len(part.modules)
        self.in_place = bool(part.whole_modules)
        self._part, self._base = part, base
        self._module_names = [name for name, _ in model.named_modules()]
        _refuse_missing(self._module_names, part)
        model.requires_grad_(False)
        wrapped = peft.get_peft_model(model, _config(part))
        _refuse_more(model, part)
        self._layers = {name: model.get_submodule(name) for name in part.modules}
        for name, layer in self._layers.items():
            layer.lora_dropout[ONE] = _KeyedDropout(name, part.dropout, noise) if part.dropout else nn.Identity()
            if part.start not in OF_THE_BASE:
                _start(layer, name, part, noise.seed)
        self._parameters = _named(wrapped)
        self._beginning = {
            name: (layer.lora_A[ONE].weight.detach().clone(), layer.lora_B[ONE].weight.detach().clone())
            for name, layer in self._layers.items()
            if part.start in OF_THE_BASE
        }
        """The part of W that was taken out of it, by module; empty where nothing was."""
        self.learn(False)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return self._parameters

    def learn(self, learning: bool) -> None:
        self.learning = learning
        for layer in self._layers.values():
            layer.lora_dropout.train(learning)

    def write_adapter(self, directory: Path) -> None:
        """As PEFT's two files, which fit the base as it was.

        What started as a part of the base becomes plain LoRA of twice the rank: W - scale B0 A0 + scale B A
        = W + scale (B | -B0) (A over A0).
        """
        part, masters = self._part, {name: parameter.detach() for name, parameter in self._parameters.items()}
        pairs, (rank, alpha) = {}, part.saved_rank_and_alpha
        for name in part.modules:
            a_rI, b_Or = map(masters.pop, keys_of(name))
            if self._beginning:
                a0_rI, b0_Or = self._beginning[name]
                a_rI, b_Or = torch.cat((a_rI, a0_rI)), torch.cat((b_Or, -b0_Or), 1)
            pairs[name] = a_rI, b_Or
        changes: dict[str, Any] = {"use_dora": part.decomposed, "bias": part.bias}
        if part.whole_modules:
            changes["modules_to_save"] = list(part.whole_modules)
        weights = AdapterWeights(rank, float(alpha), scale_of(part), pairs, self._base)
        write_adapter(directory, weights, self._module_names, masters, changes)

    def add_to(self, model: nn.Module, masters: Mapping[str, Tensor]) -> None:
        """Give a model with the base's weights, in any type, the trained ones; see `train.student.Student`."""
        for name, weight_OI in self._sums(model, masters):
            weight = model.get_submodule(name).weight.data
            round_by_chance(weight_OI, weight, generator_of(self.noise.seed, f"{name}/stored"))
        of_adapters = {key for name in self._part.modules for key in (*keys_of(name), f"{PREFIX}{name}{LENGTHS}")}
        for name, master in masters.items():
            if name not in of_adapters:
                weight = model.get_parameter(name.removeprefix(PREFIX).replace(".base_layer.", ".")).data
                round_by_chance(master, weight, generator_of(self.noise.seed, f"{name}/stored"))

    def _sums(self, model: nn.Module, masters: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Each adapted module's weight with its adapter in it, float32."""
        scale = scale_of(self._part)
        for name in self._part.modules:
            weight_OI = model.get_submodule(name).weight.data.float()
            a_rI, b_Or = map(masters.__getitem__, keys_of(name))
            weight_OI = weight_OI + scale * (b_Or @ a_rI)
            if self._beginning:
                a0_rI, b0_Or = self._beginning[name]
                weight_OI -= scale * (b0_Or @ a0_rI)
            if self._part.decomposed:
                lengths_O = masters[f"{PREFIX}{name}{LENGTHS}"]
                weight_OI *= (lengths_O / torch.linalg.vector_norm(weight_OI, dim=1))[:, None]
            yield name, weight_OI


class _KeyedDropout(nn.Module):
    """Zeroes elements of an adapter's input while it learns, drawn from the key of the pass."""

    def __init__(self, name: str, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.name, self.dropout, self.noise = name, dropout, noise

    def forward(self, x_BTI: Tensor) -> Tensor:
        return x_BTI * self.noise.kept(x_BTI, self.dropout, self.name) if self.training else x_BTI


def _config(part: LoraPart) -> peft.LoraConfig:
    """Random start values are drawn elsewhere; those of the base are PEFT's."""
    start: Any = part.start if part.start in OF_THE_BASE else True
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=part.rank,
        lora_alpha=part.alpha,
        target_modules=list(part.modules),
        lora_dropout=part.dropout,
        bias=part.bias,
        modules_to_save=list(part.whole_modules) or None,
        use_rslora=part.rank_stabilised,
        use_dora=part.decomposed,
        init_lora_weights=start,
    )


def _refuse_missing(modules: Collection[str], part: LoraPart) -> None:
    for field, names in (("modules", part.modules), ("whole_modules", part.whole_modules)):
        if missing := sorted(set(names).difference(modules)):
            raise EngineError(f"adapter.{field}: the model has no module {missing[0]}", "TrainingConfigError")


def _refuse_more(model: nn.Module, part: LoraPart) -> None:
    """PEFT takes a name for every name that ends like it; what it took beyond the plan is refused."""
    for field, kind, names in (
        ("modules", LoraLayer, part.modules),
        ("whole_modules", ModulesToSaveWrapper, part.whole_modules),
    ):
        found = {name for name, module in model.named_modules() if isinstance(module, kind)}
        if more := sorted(found.difference(names)):
            raise EngineError(
                f"adapter.{field}: {more[0]} ends like a module that is named and cannot be told from it by PEFT; name "
                "both or neither",
                "TrainingConfigError",
            )


def _start(layer: Any, name: str, part: LoraPart, seed: int) -> None:
    """Overwrite PEFT's random start values by ours, and the lengths that follow from them."""
    a_rI, b_Or = start_values(layer.in_features, layer.out_features, name, part, seed)
    a, b = layer.lora_A[ONE].weight, layer.lora_B[ONE].weight
    a.data.copy_(a_rI)
    b.data.copy_(b_Or)
    if part.decomposed:
        weight_OI = layer.get_base_layer().weight.detach().float() + scale_of(part) * (b.detach() @ a.detach())
        layer.lora_magnitude_vector[ONE].weight.data.copy_(torch.linalg.vector_norm(weight_OI, dim=1))


def _named(wrapped: peft.PeftModel) -> dict[str, nn.Parameter]:
    """The trained parameters, in the model's order, by the names that PEFT saves them under."""
    saved = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    names = {tensor.data_ptr(): name for name, tensor in saved.items()}
    return {names[each.data_ptr()]: each for each in wrapped.parameters() if each.requires_grad}
