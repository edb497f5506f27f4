"""Many low-rank adapters on one base model in memory: a batch may mix the base and any of them.

The base stays as it is; a forward hook on each adapted linear adds (x A) B for the rows that want it. Decoding rows are
served by two products however many adapters they use: the A of all adapters in the step stand side by side, and what a
row computed for adapters that are not its own is zeroed in between. Prompts are one product pair per row.

Shapes: T packed tokens, I inputs, O outputs, r rank (of one adapter, or the sum over those in the step).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tunesmith.errors import EngineError
from tunesmith.model.peft_files import AdapterWeights


@dataclass(frozen=True, eq=False, slots=True)
class Adapter:
    """An adapter that fits the base, in the base's type and on its device."""

    factors: dict[str, tuple[torch.Tensor, torch.Tensor]]
    """Full module name -> (A_Ir, B_rO), transposed from the file's form (20% faster on CPU); the scale is in B."""


Owners = tuple[Adapter, ...]
"""Whose rank columns stand side by side, in this order."""


@dataclass(slots=True)
class _Span:
    """Packed tokens that are adapted in one go."""

    tokens: slice
    factors: dict[str, tuple[torch.Tensor, torch.Tensor]]
    owners: dict[str, Owners]
    masks: dict[Owners, torch.Tensor]
    """[T, r], 1 where a column belongs to the token's own adapter; empty when all columns do."""


class AdaptedLinears:
    """The hooks on one model. `begin` must be called before each forward pass, on the same thread."""

    def __init__(self, model: nn.Module) -> None:
        self._linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        first = next(model.parameters())
        self._device, self._dtype = first.device, first.dtype
        self._hooked: set[str] = set()
        self._spans: list[_Span] = []
        self._stacked_for: Owners = ()
        self._stacked: tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], dict[str, Owners]] = ({}, {})

    def fit(self, weights: AdapterWeights) -> Adapter:
        """Check every name and shape against the base and copy to its type; EngineError names the first misfit.

        Touches nothing that a running step reads, so any thread may call it.
        """
        factors: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for name, (a_rI, b_Or) in weights.modules.items():
            linear = self._linears.get(name)
            if linear is None:
                raise EngineError(f"the adapter changes {name}, which is not a linear layer of the base model")
            if a_rI.shape[1] != linear.in_features or b_Or.shape[0] != linear.out_features:
                raise EngineError(
                    f"the adapter maps {a_rI.shape[1]} inputs to {b_Or.shape[0]} outputs at {name}; "
                    f"the base has {linear.in_features} and {linear.out_features}: it was trained on another model"
                )
            if a_rI.shape[0] != b_Or.shape[1]:
                raise EngineError(f"the adapter's halves at {name} have ranks {a_rI.shape[0]} and {b_Or.shape[1]}")
            if not (a_rI.isfinite().all() and b_Or.isfinite().all()):
                raise EngineError(f"the adapter holds numbers at {name} that are not finite")
            factors[name] = (
                a_rI.T.contiguous().to(device=self._device, dtype=self._dtype),
                (b_Or.float() * weights.scale).T.contiguous().to(device=self._device, dtype=self._dtype),
            )
        return Adapter(factors)

    def hook(self, adapter: Adapter) -> None:
        """Make the base's modules ready for `adapter`; on the model's thread, between two steps."""
        for name in adapter.factors.keys() - self._hooked:
            self._linears[name].register_forward_hook(self._adding(name))
            self._hooked.add(name)

    def begin(self, decoding: Sequence[Adapter | None], prefills: Sequence[tuple[int, Adapter | None]]) -> None:
        """Say whose the next pass's tokens are: one each of `decoding`, then runs of (tokens, adapter)."""
        self._spans = []
        owners = tuple(sorted({adapter for adapter in decoding if adapter is not None}, key=id))
        if owners:
            self._spans.append(self._shared(decoding, owners))
        first = len(decoding)
        for tokens, adapter in prefills:
            if adapter is not None:
                self._spans.append(_Span(slice(first, first + tokens), adapter.factors, {}, {}))
            first += tokens

    def _shared(self, decoding: Sequence[Adapter | None], owners: Owners) -> _Span:
        factors, owners_of = self._stack(owners)
        masks: dict[Owners, torch.Tensor] = {}
        if len(owners) > 1 or None in decoding:
            masks = {group: _mask(decoding, group) for group in set(owners_of.values())}
        return _Span(slice(0, len(decoding)), factors, owners_of, masks)

    def _stack(self, owners: Owners) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], dict[str, Owners]]:
        """Factors of all `owners` side by side; kept until another set of adapters decodes."""
        if owners != self._stacked_for:
            names = {name for owner in owners for name in owner.factors}
            owners_of = {name: tuple(owner for owner in owners if name in owner.factors) for name in names}
            factors = {name: _side_by_side(name, group) for name, group in owners_of.items()}
            self._stacked_for, self._stacked = owners, (factors, owners_of)
        return self._stacked

    def forget(self, adapter: Adapter) -> None:
        """Drop copies of an adapter that no row uses any more; on the model's thread."""
        if adapter in self._stacked_for:
            self._stacked_for, self._stacked = (), ({}, {})

    def _adding(self, name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def add(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if not self._spans:
                return
            x_TI = inputs[0].view(-1, inputs[0].shape[-1])
            y_TO = output.view(-1, output.shape[-1])
            for span in self._spans:
                pair = span.factors.get(name)
                if pair is None:
                    continue
                a_Ir, b_rO = pair
                h_Tr = x_TI[span.tokens] @ a_Ir
                if span.masks:
                    h_Tr *= span.masks[span.owners[name]]
                y_TO[span.tokens].addmm_(h_Tr, b_rO)

        return add


def _side_by_side(name: str, owners: Owners) -> tuple[torch.Tensor, torch.Tensor]:
    if len(owners) == 1:
        return owners[0].factors[name]
    pairs = [owner.factors[name] for owner in owners]
    return torch.cat([a_Ir for a_Ir, _ in pairs], 1), torch.cat([b_rO for _, b_rO in pairs], 0)


def _mask(decoding: Sequence[Adapter | None], owners: Owners) -> torch.Tensor:
    """[T, r]: which rank columns are the token's own. A base token owns none.

    All of an adapter's modules have one rank, so any of them tells how many columns it has.
    """
    firsts = [next(iter(owner.factors.values()))[0] for owner in owners]
    rows = [[float(own is owner) for owner in owners] for own in decoding]
    mask_TK = torch.tensor(rows, dtype=firsts[0].dtype, device=firsts[0].device)
    return mask_TK.repeat_interleave(torch.tensor([a_Ir.shape[1] for a_Ir in firsts], device=mask_TK.device), dim=1)
