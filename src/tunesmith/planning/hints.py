"""How many GPUs of 80 GB training takes at least: a hint from the size alone, not a promise.

Bytes, over all GPUs together but for the last line, which each GPU needs on its own:

    all weights   18 a parameter: bf16 for the products 2, float32 master 4, gradient 4, Adam's two moments 8
    LoRA          the frozen weights as stored (2 a parameter; 1 of 8 bits; 0.6 of 4 bits with scales), and 18 a
                  parameter of adapters of rank 16 on every linear module
    activations   for one row of 2,048 tokens with recomputation: layers x hidden_size x 2, and 8 for each logit
"""

from __future__ import annotations

from collections.abc import Iterable

from tunesmith.planning.layout import Linear

GPU_BYTES = 80 * 10**9
USABLE = 0.9
"""Of a GPU's memory; the rest is the driver's, fragments and buffers."""

TRAINED_BYTES = 18
RANK = 16
TOKENS = 2048


def minimum_gpus(shared_bytes: float, each_bytes: float) -> int:
    """The smallest power of two of GPUs that hold `shared_bytes` between them and `each_bytes` each."""
    usable = GPU_BYTES * USABLE
    room = max(usable - each_bytes, usable / 8)
    gpus = 1
    while gpus * room < shared_bytes:
        gpus *= 2
    return gpus


def all_weights_bytes(parameters: int) -> float:
    """What training every weight takes, over all GPUs."""
    return TRAINED_BYTES * parameters


def lora_bytes(parameters: int, linears: Iterable[Linear], precision: str) -> float:
    """What training adapters takes, over all GPUs."""
    stored = {"int4": 0.6, "int8": 1.0, "float8": 1.0}.get(precision, 2.0)
    adapters = RANK * sum(each.in_features + each.out_features for each in linears)
    return stored * parameters + TRAINED_BYTES * adapters


def activation_bytes(layers: int, hidden: int, vocab: int) -> float:
    """What one row in flight takes, on each GPU."""
    return TOKENS * (2 * layers * hidden + 8 * vocab)
