"""Attention over short rows on a CPU, where torch's own kernel spends its time on overhead.

Measured in bf16 on one AVX-512/AMX core, 8 rows of 119 tokens, 9 heads over 3 key heads of 64: forward and backward of
scaled_dot_product_attention take 29 ms, the four batched products below 6.5 ms; they break even near 400 tokens. The
function is registered with transformers, so the model code stays unmodified.

Shapes: B rows, H query heads, K key heads, G = H / K query heads of one key head, T tokens, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NAME = "tunesmith_short_rows"
LONGEST = 256
"""Tokens of a row up to which the explicit products win, in bf16 and in fp32."""


def prefer_short_rows(model: nn.Module) -> None:
    """Let a transformers model on the CPU use `attend` where it would use torch's kernel. Same numbers to rounding."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def attend(
    module: nn.Module,
    q_BHTD: Tensor,
    k_BKTD: Tensor,
    v_BKTD: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """o_BTHD of plain causal attention; anything else (masks, windows, caps, sinks) goes to transformers' function."""
    tokens, size = q_BHTD.shape[2:]
    plain = attention_mask is None and getattr(module, "is_causal", True) and not any(map(_is_set, others.items()))
    if not plain or not 1 < tokens <= LONGEST or k_BKTD.shape[2] != tokens or v_BKTD.shape[3] != size:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, q_BHTD, k_BKTD, v_BKTD, attention_mask, scaling=scaling, **others)
    o_BHTD: Tensor = _Causal.apply(q_BHTD, k_BKTD, v_BKTD, size**-0.5 if scaling is None else scaling)
    return o_BHTD.transpose(1, 2), None


def _is_set(argument: tuple[str, Any]) -> bool:
    """An argument that asks for more than plain causal attention."""
    name, value = argument
    if name in ("position_ids", "use_cache", "output_attentions", "is_causal", "cache_position"):
        return name == "is_causal" and value is False
    return value is not None and value is not False and not (isinstance(value, int | float) and value == 0)


class _Causal(torch.autograd.Function):
    """softmax(scale Q K^T) V with the query heads of one key head stacked, so that keys are never repeated."""

    @staticmethod
    def forward(ctx: Any, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, scale: float) -> Tensor:
        rows, heads, tokens, size = q_BHTD.shape
        pairs = rows * k_BKTD.shape[1]
        q, k, v = q_BHTD.reshape(pairs, -1, size), k_BKTD.reshape(pairs, -1, size), v_BKTD.reshape(pairs, -1, size)
        future_TT = q.new_full((tokens, tokens), -torch.inf).triu_(1)
        scores = torch.bmm(q, k.mT).view(pairs, -1, tokens, tokens).mul_(scale).add_(future_TT)
        p = scores.softmax(-1).view(pairs, -1, tokens)
        ctx.save_for_backward(q, k, v, p)
        ctx.scale, ctx.shapes = scale, (q_BHTD.shape, k_BKTD.shape)
        return torch.bmm(p, v).view(rows, heads, tokens, size)

    @staticmethod
    def backward(ctx: Any, grad_BHTD: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, p = ctx.saved_tensors
        q_shape, k_shape = ctx.shapes
        grad = grad_BHTD.reshape(q.shape)
        d_v = torch.bmm(p.mT, grad)
        d_p = torch.bmm(grad, v.mT)
        d_scores = torch._softmax_backward_data(d_p, p, -1, p.dtype).mul_(ctx.scale)  # noqa: SLF001 - p (d_p - sum(d_p p))
        return torch.bmm(d_scores, k).view(q_shape), torch.bmm(d_scores.mT, q).view(k_shape), d_v.view(k_shape), None
