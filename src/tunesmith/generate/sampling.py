"""Chooses the next token from logits: greedy, or by temperature, top-k and top-p with noise keyed by (seed, position).

A request with a seed therefore draws the same noise whatever else is in the batch. Equal tokens are promised for equal
batch shapes only, because the logits themselves round differently in batches of another shape.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

NUCLEUS_GUESS = 1024
"""Tokens that top-p looks at first. A full sort of 49k logits takes 2 ms a row; the nucleus is almost always here."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request's tokens are chosen."""

    temperature: float = 1.0
    """0 = greedy; the other fields then change nothing."""
    top_p: float = 1.0
    """Draw from the smallest set of most likely tokens whose probability reaches this (after top-k)."""
    top_k: int = 0
    """Draw from this many most likely tokens; 0 = all."""
    seed: int = 0
    """Keys the noise."""


def choose(logits_BV: torch.Tensor, samplings: Sequence[Sampling], positions: Sequence[int]) -> list[int | None]:
    """One token id per row; None where the row's logits are not finite, so that no honest choice exists.

    `positions` are the places in the row's sequence (prompt included) that the tokens will take.
    """
    best_B, greedy_B = logits_BV.max(dim=-1)
    best, greedy = best_B.tolist(), greedy_B.tolist()
    chosen: list[int | None] = []
    for row, (sampling, position) in enumerate(zip(samplings, positions, strict=True)):
        if not math.isfinite(best[row]):
            chosen.append(None)
        elif sampling.temperature == 0:
            chosen.append(greedy[row])
        else:
            chosen.append(draw(logits_BV[row], sampling, uniform(sampling.seed, position)))
    return chosen


def draw(logits_V: torch.Tensor, sampling: Sampling, noise: float) -> int:
    """The token at quantile `noise` (0 <= noise < 1) of the filtered distribution."""
    # Shifted by the maximum first: a tiny temperature then gives -inf and never inf - inf.
    scaled_V = (logits_V.float() - logits_V.max().float()) / sampling.temperature
    if sampling.top_k == 0 and sampling.top_p >= 1:
        return quantile(scaled_V.softmax(-1), noise)
    likely_K, ids_K = most_likely(scaled_V, sampling)
    if sampling.top_p < 1:
        below_K = likely_K.double().cumsum(-1) - likely_K
        kept = max(1, int((below_K < sampling.top_p).sum()))
        likely_K = likely_K[:kept]
    return int(ids_K[quantile(likely_K, noise)])


def most_likely(scaled_V: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities in falling order and their ids: the top-k renormalised, or enough of all to hold the nucleus."""
    size = scaled_V.shape[-1]
    if 0 < sampling.top_k < size:
        values_K, ids_K = scaled_V.topk(sampling.top_k)
        return values_K.softmax(-1), ids_K
    if size > NUCLEUS_GUESS:
        values_K, ids_K = scaled_V.topk(NUCLEUS_GUESS)
        likely_K = (values_K - scaled_V.logsumexp(-1)).exp()
        if float(likely_K.double().sum()) >= sampling.top_p:
            return likely_K, ids_K
    values_K, ids_K = scaled_V.sort(descending=True)
    return values_K.softmax(-1), ids_K


def quantile(weights_K: torch.Tensor, noise: float) -> int:
    """Index where the running sum of the weights first exceeds `noise` of their total."""
    running_K = weights_K.cumsum(-1, dtype=torch.float64)
    index = int(torch.searchsorted(running_K, running_K[-1:] * noise, right=True))
    return min(index, weights_K.shape[-1] - 1)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits that depends on nothing but its arguments."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53
