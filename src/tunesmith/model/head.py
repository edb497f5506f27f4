"""The last step of a language model, hidden state to logits, as one matrix and what some families do around it.

Having it apart lets a loss compute logits only where a token is trained on, a chunk at a time. `Head.of` therefore
stands in for the end of transformers' own forward; `check` proves on one input that it does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tunesmith.errors import EngineError

AGREEMENT = {torch.bfloat16: 0.05, torch.float16: 0.01, torch.float32: 1e-4, torch.float64: 1e-9}
"""Largest difference between our logits and the model's own, relative to the largest logit: a few roundings."""


@dataclass(frozen=True, slots=True)
class Head:
    """logits = softcap * tanh(scale * (W h + b) / softcap); softcap 0 = no cap."""

    weight_VH: Tensor
    bias_V: Tensor | None
    scale: float
    softcap: float

    @classmethod
    def of(cls, model: nn.Module) -> Head:
        """The head of a transformers model (Granite and Cohere scale, Gemma caps)."""
        linear, config = model.get_output_embeddings(), model.config.get_text_config()
        return cls(
            linear.weight,
            getattr(linear, "bias", None),
            getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1),
            getattr(config, "final_logit_softcapping", None) or 0.0,
        )

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """logits_NV in float32 at least; the matrix product runs in the weight's type."""
        logits_NV = nn.functional.linear(hidden_NH, self.weight_VH, self.bias_V)
        logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
        if self.scale != 1:
            logits_NV *= self.scale
        if self.softcap:
            logits_NV = logits_NV.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits_NV


def hidden_states(model: nn.Module, ids_BT: Tensor, bounds: Tensor | None = None) -> Tensor:
    """hidden_BTH before the head.

    With `bounds`, ids_BT is one sequence of whole rows, and the model computes attention by `attend_by_rows`. Without,
    rows are padded on the right only: causal attention then needs no mask.
    """
    given: dict[str, Tensor] = {}
    if bounds is not None:
        starts, lengths = bounds.flatten()[:-1], bounds.flatten().diff()
        places_T = torch.arange(ids_BT.shape[1]) - starts.repeat_interleave(lengths)
        given = {"attention_mask": bounds, "position_ids": places_T[None].to(ids_BT.device, non_blocking=True)}
    hidden: Tensor = model.base_model(input_ids=ids_BT, use_cache=False, **given).last_hidden_state
    return hidden


def check(model: nn.Module, head: Head, ids_T: Tensor) -> None:
    """EngineError if `head` does not compute this family's logits, or these are no numbers (ModelLoadError)."""
    with torch.no_grad():
        ours_V = head.logits(hidden_states(model, ids_T[None])[0, -1:])[0]
        theirs_V = model(input_ids=ids_T[None], use_cache=False).logits[0, -1].to(ours_V.dtype)
    if not theirs_V.isfinite().all():
        raise EngineError(
            f"the model answers with what is no number (nan or infinite) in {head.weight_VH.dtype}: upload the "
            "checkpoint again if its weights hold some, or take a wider precision (bf16, fp32)",
            "ModelLoadError",
        )
    limit = AGREEMENT[head.weight_VH.dtype] * float(theirs_V.abs().max().clamp(min=1))
    apart = float((ours_V - theirs_V).abs().max())
    if not apart <= limit:
        raise EngineError(
            f"{type(model).__name__} makes its logits in a way this engine does not know (apart by {apart:g}); "
            "this family cannot be trained yet",
            "TrainingConfigError",
        )
