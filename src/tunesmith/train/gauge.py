"""What a run reaches: the floating-point operations its method needs, the device's rate at them, memory at its peak.

Counted is what the mathematics asks for on real tokens, whatever is computed beyond that (padding, recomputation):

    matrices    2 per weight and token forward, 2 for the gradient of the input, 2 more for the weight's own where it is
                trained: 4 per frozen weight and 6 per trained one. Embeddings are looked up and cost nothing; of a
                layer's experts only those count that a token goes through
    head        the same, but at trained positions only
    attention   2 x 2 x head size per head and pair of tokens forward (scores, then values), twice that backward: 12 x
                head size per head and pair. A row of T tokens has T (T + 1) / 2 pairs; in a window of W each token has
                at most W

Norms, activations and the scans of state-space layers are left out: under 2% of the models here.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.model.head import Head
from tunesmith.train.batches import Pass

FROZEN, TRAINED = 4, 6
"""Operations per weight and token, forward and backward."""
PAIR = 12
"""Operations per pair of tokens, head and element of a head, forward and backward."""

RATE_SECONDS = 0.15
"""That measuring the device may take; what has begun is finished."""
PROBE_TOKENS = {"cpu": 512, "cuda": 8192}
PROBE_WEIGHTS = {"cpu": 1 << 22, "cuda": 1 << 30}
"""Of a measured product: large enough for the full rate, small enough for the time (512 tokens on 4 M weights: 4 GFLOP,
86 ms at 50 GFLOP/s). Of a larger matrix some rows are taken."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One attention layer."""

    heads: int
    size: int
    """Of a head."""
    window: int | None
    """Tokens that a token sees, itself included; None = all before it."""


class Gauge:
    """Counts a model's operations and knows the rate that its device reaches at them."""

    def __init__(self, model: nn.Module, trained: Iterable[Tensor], head: Head, device: torch.device) -> None:
        """`trained`: the parameters that are trained. Takes about RATE_SECONDS to measure the device."""
        self._device = device
        learns = {id(weight) for weight in trained}
        self._per_token = _matrices(model, head, learns)
        self._per_trained_token = (TRAINED if id(head.weight_VH) in learns else FROZEN) * head.weight_VH.numel()
        self._attention = Counter(attention_layers(model))
        self._rate = product_rate(model, device)

    def flops(self, part: Pass) -> float:
        """What learning from a pass, or a part of one, needs."""
        return self.flops_of(part.lengths, len(part.targets_N))

    def flops_of(self, lengths: Sequence[int], trained_tokens: int) -> float:
        """The same for rows of these lengths with so many trained tokens in all."""
        attention = sum(
            times * PAIR * layer.heads * layer.size * sum(pairs(length, layer.window) for length in lengths)
            for layer, times in self._attention.items()
        )
        return self._per_token * sum(lengths) + self._per_trained_token * trained_tokens + attention

    def utilisation(self, flops: float, seconds: float) -> float | None:
        """`flops` done in `seconds`, as a part of the device's rate; None where that could not be measured."""
        return flops / seconds / self._rate if self._rate and seconds > 0 else None

    def peak_memory(self) -> int:
        """Most bytes that this process has held so far: on the GPU where it computes there, else resident."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def pairs(tokens: int, window: int | None) -> float:
    """Pairs of a token and one that it sees, in a row of so many."""
    seen = min(tokens, window or tokens)
    return seen * (seen + 1) / 2 + (tokens - seen) * seen


def attention_layers(model: nn.Module) -> list[Layer]:
    """The attention layers of a transformers model, in their order."""
    config = model.config.get_text_config()
    windowed = getattr(config, "sliding_window", None) if not hasattr(config, "layer_types") else None
    return [
        Layer(config.num_attention_heads, module.head_dim, getattr(module, "sliding_window", windowed))
        for _, module in model.named_modules()
        if type(module).__name__.endswith("Attention") and isinstance(getattr(module, "head_dim", None), int)
    ]


def product_rate(model: nn.Module, device: torch.device) -> float | None:
    """Operations a second of the model's own matrix products, on its own weights; None if it has none.

    The shapes are weighed by how often they come. On a CPU it is the rate that all threads reach when nobody else is at
    work: operations by CPU-second, times threads.
    """
    kinds: dict[tuple[int, ...], list[Tensor]] = {}
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight is not getattr(_output_of(model), "weight", None):
            kinds.setdefault(tuple(module.weight.shape), []).append(module.weight)
    wide = sorted(kinds.values(), key=lambda alike: -len(alike) * alike[0].numel())
    until, flops, seconds = time.monotonic() + RATE_SECONDS, 0.0, 0.0
    for alike in wide:
        if seconds and time.monotonic() > until:
            break
        work, took = _product(alike[0], device, (until - time.monotonic()) / 2)
        share = len(alike) * alike[0].numel() / work
        flops, seconds = flops + share * work, seconds + share * took
    return flops / seconds if seconds else None


def _product(weight_OI: Tensor, device: torch.device, within: float) -> tuple[float, float]:
    """Operations of one product with (some rows of) this weight, and seconds of the fastest of a few, at least two."""
    tokens, most = PROBE_TOKENS[device.type], PROBE_WEIGHTS[device.type]
    weight_OI = weight_OI.detach()[: max(256, most // weight_OI.shape[1])]
    x_NI = torch.full((tokens, weight_OI.shape[1]), 0.01, dtype=weight_OI.dtype, device=device)
    best, tried, until = float("inf"), 0, time.monotonic() + within
    while tried < 2 or (tried < 8 and time.monotonic() < until):
        began = _now(device)
        functional.linear(x_NI, weight_OI)
        best, tried = min(best, _now(device) - began), tried + 1
    return 2.0 * tokens * weight_OI.numel(), best


def _now(device: torch.device) -> float:
    """Seconds of the device: on a CPU those that all threads worked, by their number."""
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _matrices(model: nn.Module, head: Head, learns: set[int]) -> float:
    """Operations per token of all matrices but embeddings and head."""
    looked_up = {
        id(weight) for module in model.modules() if isinstance(module, nn.Embedding) for weight in module.parameters()
    }
    apart = looked_up | {id(head.weight_VH)} | {id(weight) for weight in _weights(_output_of(model))}
    active = _active_experts(model.config.get_text_config())
    total = 0.0
    for name, weight in model.named_parameters():
        path = name.split(".")
        # PEFT keeps the module that it trains a copy of; nothing goes through it any more.
        if weight.ndim < 2 or id(weight) in apart or path[-1].endswith("bias") or "original_module" in path:
            continue
        each = TRAINED if id(weight) in learns else FROZEN
        total += each * weight.numel() * (active if "experts" in path else 1.0)
    return total


def _active_experts(config: Any) -> float:
    """The part of a layer's routed experts that a token goes through."""
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    experts = next((found for name in names if (found := getattr(config, name, None))), 0)
    return getattr(config, "num_experts_per_tok", experts) / experts if experts else 1.0


def _output_of(model: nn.Module) -> nn.Module | None:
    found: nn.Module | None = model.get_output_embeddings()
    return found


def _weights(module: nn.Module | None) -> Iterable[Tensor]:
    return module.parameters() if module is not None else ()
