"""Losses as sums over trained tokens, computed without ever holding a logit for each token of a batch.

Shapes: N trained tokens, n those of a chunk, H hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tunesmith.model.head import Head

CHUNK_BYTES = 16 << 20
"""float32 logits that are held at a time. Smaller chunks stay in the cache, larger ones feed the matrix product."""


def summed_cross_entropy(hidden_NH: Tensor, targets_N: Tensor, head: Head) -> Tensor:
    """Sum of the targets' negative log-likelihoods in nats, a scalar; the head is frozen."""
    total: Tensor = _SummedCrossEntropy.apply(hidden_NH, targets_N, head)
    return total


class _SummedCrossEntropy(torch.autograd.Function):
    """Computes the gradient beside the loss and keeps only that: [N, H] instead of [N, V]."""

    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, targets_N: Tensor, head: Head) -> Tensor:
        grad_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        losses: list[Tensor] = []
        size = max(1, CHUNK_BYTES // (4 * head.weight_VH.shape[0]))
        for start in range(0, len(targets_N), size):
            part = slice(start, start + size)
            logits_nV, targets_n1 = head.logits(hidden_NH[part]), targets_N[part, None]
            normaliser_n1 = torch.logsumexp(logits_nV, -1, keepdim=True)
            losses.append((normaliser_n1 - logits_nV.gather(-1, targets_n1)).sum())
            if grad_NH is not None:
                grad_NH[part] = _gradient(logits_nV, normaliser_n1, targets_n1, head)
        ctx.save_for_backward(grad_NH)
        return torch.stack(losses).sum() if losses else hidden_NH.new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (grad_NH,) = ctx.saved_tensors
        return grad_NH * grad.to(grad_NH.dtype), None, None


def _gradient(logits_nV: Tensor, normaliser_n1: Tensor, targets_n1: Tensor, head: Head) -> Tensor:
    """d loss / d hidden: (softmax - one-hot) W, through the head's scale and cap. Overwrites the logits."""
    slope_nV = 1 - (logits_nV / head.softcap) ** 2 if head.softcap else None
    grad_nV = logits_nV.sub_(normaliser_n1).exp_()
    grad_nV.scatter_add_(-1, targets_n1, grad_nV.new_full((1, 1), -1.0).expand_as(targets_n1))
    if slope_nV is not None:
        grad_nV *= slope_nV
    return (grad_nV.to(head.weight_VH.dtype) @ head.weight_VH) * head.scale
