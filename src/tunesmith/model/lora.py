"""Low-rank adapters beside frozen linear layers (Hu et al., 2021): y = W x + scale B A x.

scale = alpha / rank, or alpha / sqrt(rank) where it is rank-stabilised (Kalajdzievski, 2023). A and B are float32
master weights; products run in the base weight's type. Start values are drawn from (seed, module), dropout from the key
of the pass.

Shapes: B batch rows, T tokens of a row, I inputs, O outputs, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.errors import EngineError
from tunesmith.handoff.peft import keys_of
from tunesmith.handoff.plan import LoraPart
from tunesmith.model.noise import Noise, generator_of
from tunesmith.model.peft_files import AdapterWeights


class LoraLinear(nn.Module):
    """A frozen linear layer with an adapter beside it."""

    def __init__(self, base: nn.Linear, name: str, part: LoraPart, noise: Noise) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.scale = scale_of(part)
        self.dropout = part.dropout
        self.noise = noise
        a_rI, b_Or = start_values(base.in_features, base.out_features, name, part, noise.seed)
        self.A_rI = nn.Parameter(a_rI.to(base.weight.device))
        self.B_Or = nn.Parameter(b_Or.to(base.weight.device))

    def forward(self, x_BTI: Tensor) -> Tensor:
        if self.training and self.dropout:
            kept_BTI = x_BTI * self.noise.kept(x_BTI, self.dropout, self.name)
            h_BTr = functional.linear(kept_BTI, self.A_rI.to(x_BTI.dtype))
            return self.base(x_BTI) + functional.linear(h_BTr, self.B_Or.to(x_BTI.dtype)) * self.scale
        y_BTO: Tensor = _Fused.apply(x_BTI, self.A_rI, self.B_Or, self.base.weight, self.base.bias, self.scale)
        return y_BTO


class _Fused(torch.autograd.Function):
    """W x + b + scale B A x as one node: no sum of its own, no scaling pass, one gradient for x.

    Measured on a 135M Llama in bf16, rank 16 on 210 modules: 440 tokens per CPU-second against 382 with plain modules.
    Written for frozen W and b. The scale rides on the type's copy of B, which is exact for powers of two.
    N = B * T.
    """

    @staticmethod
    def forward(
        ctx: Any, x_BTI: Tensor, a_rI: Tensor, b_Or: Tensor, w_OI: Tensor, bias_O: Tensor | None, scale: float
    ) -> Tensor:
        x_NI = x_BTI.flatten(0, -2)
        ctx.scale, ctx.master = scale, a_rI.dtype
        a_rI, b_Or = a_rI.to(x_NI.dtype), (b_Or * scale).to(x_NI.dtype)
        h_Nr = x_NI @ a_rI.T
        y_NO = functional.linear(x_NI, w_OI, bias_O)
        y_NO.addmm_(h_Nr, b_Or.T)
        ctx.save_for_backward(x_NI, h_Nr, a_rI, b_Or, w_OI)
        return y_NO.view(*x_BTI.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad_BTO: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None, None]:
        x_NI, h_Nr, a_rI, b_Or, w_OI = ctx.saved_tensors
        grad_NO = grad_BTO.flatten(0, -2)
        grad_h_Nr = grad_NO @ b_Or
        # Laid out as B is, or a GPU would add up the gradients of all modules one by one.
        grad_b_Or = (h_Nr.T @ grad_NO).T.to(ctx.master, memory_format=torch.contiguous_format) * ctx.scale
        grad_a_rI = (grad_h_Nr.T @ x_NI).to(ctx.master)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x_NI = grad_NO @ w_OI
            grad_x_NI.addmm_(grad_h_Nr, a_rI)
            grad_x = grad_x_NI.view(*grad_BTO.shape[:-1], -1)
        return grad_x, grad_a_rI, grad_b_Or, None, None, None


def adapt(model: nn.Module, part: LoraPart, noise: Noise) -> dict[str, LoraLinear]:
    """Put an adapter beside each linear module that the plan names; full name -> adapter, in the plan's order.

    Everything else is frozen. EngineError (TrainingConfigError) if a name is not a linear module of the model.
    """
    model.requires_grad_(False)
    adapters: dict[str, LoraLinear] = {}
    for name in part.modules:
        parent, _, leaf = name.rpartition(".")
        try:
            base = model.get_submodule(name)
        except AttributeError:
            raise EngineError(f"adapter.modules: the model has no module {name}", "TrainingConfigError") from None
        if not isinstance(base, nn.Linear):
            raise EngineError(
                f"adapter.modules: {name} is a {type(base).__name__}, not a linear layer", "TrainingConfigError"
            )
        adapters[name] = LoraLinear(base, name, part, noise)
        setattr(model.get_submodule(parent), leaf, adapters[name])
    return adapters


def scale_of(part: LoraPart) -> float:
    """What B A x is multiplied by."""
    return part.alpha / (math.sqrt(part.rank) if part.rank_stabilised else part.rank)


def start_values(inputs: int, outputs: int, name: str, part: LoraPart, seed: int) -> tuple[Tensor, Tensor]:
    """A_rI and B_Or on the CPU, drawn as PEFT draws them, from the plan's adapter seed or else `seed`.

    uniform: A in +-1/sqrt(I) (Kaiming with a = sqrt(5)), B zero. gaussian: A normal with deviation 1/r, B zero.
    both_random: A as in uniform, and B in +-1/sqrt(r).
    """
    seed = seed if part.seed is None else part.seed
    draw, b_Or = generator_of(seed, name), torch.zeros(outputs, part.rank)
    if part.start == "gaussian":
        return torch.randn(part.rank, inputs, generator=draw) / part.rank, b_Or
    if part.start == "both_random":
        b_Or = _uniform(outputs, part.rank, generator_of(seed, f"{name}/B"))
    return _uniform(part.rank, inputs, draw), b_Or


def _uniform(rows: int, columns: int, draw: torch.Generator) -> Tensor:
    bound = columns**-0.5
    return torch.rand(rows, columns, generator=draw) * 2 * bound - bound


def weights_of(adapters: Mapping[str, LoraLinear], part: LoraPart, base: str) -> AdapterWeights:
    """The adapters' weights as they are written to disk; `base` names the model entity they belong to."""
    pairs = {name: (adapter.A_rI.detach(), adapter.B_Or.detach()) for name, adapter in adapters.items()}
    return AdapterWeights(part.rank, part.alpha, scale_of(part), pairs, base)


def names_of(adapters: Mapping[str, LoraLinear]) -> dict[str, nn.Parameter]:
    """The trained weights by the names that PEFT saves them under."""
    found: dict[str, nn.Parameter] = {}
    for name, adapter in adapters.items():
        found |= zip(keys_of(name), (adapter.A_rI, adapter.B_Or), strict=True)
    return found


def deltas(adapters: Mapping[str, LoraLinear]) -> Iterator[tuple[str, Tensor]]:
    """Each adapted module with what its adapter adds to W: scale B A, [O, I] in float32."""
    for name, adapter in adapters.items():
        yield name, (adapter.B_Or.detach() @ adapter.A_rI.detach()) * adapter.scale
