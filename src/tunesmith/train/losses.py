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
GPU_CHUNK_BYTES = 512 << 20
"""The same on a GPU, where each chunk reads the head's weight from memory, twice: n tokens do 2 n operations for each
of its numbers, and an H100 does 590 in the time that it takes to read one in bf16. 1,046 tokens of 128,256 logits."""
TRAINED_CHUNK = 1 / 4
"""A chunk's tokens are at least this part of H where the head is trained: each chunk reads and writes the whole weight
gradient once, which is then worth it, and the logits are at most as large as a float32 gradient's quarter."""


def summed_cross_entropy(hidden_NH: Tensor, targets_N: Tensor, head: Head, smoothing: float = 0.0) -> Tensor:
    """Sum of the targets' negative log-likelihoods in nats, a float32 scalar.

    With `smoothing` s the target has 1 - s of the probability and s is spread evenly over the vocabulary, the target
    included: (1 - s) times the plain loss + s times its mean over all V, as torch.nn.functional.cross_entropy has it.
    The head's weight and bias get gradients where they require them, in their own types.
    """
    given = [hidden_NH, head.weight_VH, head.bias_V]
    if not torch.is_grad_enabled():  # which a Function is not told
        given = [None if each is None else each.detach() for each in given]
    total: Tensor = _SummedCrossEntropy.apply(*given, targets_N, head, smoothing)
    return total


class _SummedCrossEntropy(torch.autograd.Function):
    """Computes the gradients beside the loss and keeps only those: [N, H] and perhaps [V, H] instead of [N, V]."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        head: Head,
        smoothing: float,
    ) -> Tensor:
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_NH = torch.empty_like(hidden_NH) if need_hidden else None
        grad_VH = torch.zeros_like(weight_VH, dtype=_sum_type(weight_VH)) if need_weight else None
        grad_V = torch.zeros_like(bias_V, dtype=torch.float32) if need_bias and bias_V is not None else None
        losses: list[Tensor] = []
        most = CHUNK_BYTES if hidden_NH.device.type == "cpu" else GPU_CHUNK_BYTES
        size = max(1, most // (4 * len(weight_VH)))
        if need_weight:
            size = max(size, int(TRAINED_CHUNK * weight_VH.shape[1]))
        for start in range(0, len(targets_N), size):
            part = slice(start, start + size)
            logits_nV, targets_n1 = head.logits(hidden_NH[part]), targets_N[part, None]
            normaliser_n1 = torch.logsumexp(logits_nV, -1, keepdim=True)
            losses.append(_loss(logits_nV, normaliser_n1, targets_n1, smoothing))
            if not (need_hidden or need_weight or need_bias):
                continue
            grad_nV = _gradient(logits_nV, normaliser_n1, targets_n1, head, smoothing)
            if grad_V is not None:
                grad_V += grad_nV.sum(0)
            if grad_NH is not None:
                torch.matmul(grad_nV.to(weight_VH.dtype), weight_VH, out=grad_NH[part])
            if grad_VH is not None:
                grad_VH.addmm_(grad_nV.T.to(grad_VH.dtype), hidden_NH[part].to(grad_VH.dtype))
        ctx.grads = grad_NH, grad_VH, grad_V
        return torch.stack(losses).sum() if losses else hidden_NH.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        """Scales the gradients where they lie, so a graph can be walked once, as torch's own by default."""
        scaled = [None if each is None else each.mul_(grad) for each in ctx.grads]
        del ctx.grads
        return scaled[0], scaled[1], scaled[2], None, None, None


def _loss(logits_nV: Tensor, normaliser_n1: Tensor, targets_n1: Tensor, smoothing: float) -> Tensor:
    wanted_n1 = logits_nV.gather(-1, targets_n1)
    if smoothing:
        wanted_n1 = wanted_n1 * (1 - smoothing) + logits_nV.mean(-1, keepdim=True) * smoothing
    return (normaliser_n1 - wanted_n1).sum()


def _gradient(logits_nV: Tensor, normaliser_n1: Tensor, targets_n1: Tensor, head: Head, smoothing: float) -> Tensor:
    """d loss / d (W h + b): softmax minus what is wanted, through the head's scale and cap. Overwrites the logits."""
    slope_nV = 1 - (logits_nV / head.softcap) ** 2 if head.softcap else None
    grad_nV = logits_nV.sub_(normaliser_n1).exp_()
    if smoothing:
        grad_nV -= smoothing / grad_nV.shape[1]
    grad_nV.scatter_add_(-1, targets_n1, grad_nV.new_full((1, 1), smoothing - 1).expand_as(targets_n1))
    if slope_nV is not None:
        grad_nV *= slope_nV
    return grad_nV if head.scale == 1 else grad_nV.mul_(head.scale)


def _sum_type(weight_VH: Tensor) -> torch.dtype:
    """fp16 is summed in float32: probabilities of rare tokens are below its smallest number, 6e-8."""
    return torch.float32 if weight_VH.dtype == torch.float16 else weight_VH.dtype
