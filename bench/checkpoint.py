"""What a checkpoint costs: seconds to write one, and the share of the time at one a minute, against the 2% we allow.

    .venv/bin/python -m bench.checkpoint [DIRECTORY]

Adapters of rank 16 on all linear modules of two Llamas, and all weights of the small one, with Adam's state, written to
DIRECTORY's disk and flushed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.plans import plan
from tunesmith.handoff.prepared import Prepared, RowSet
from tunesmith.train.checkpoint import Checkpoints, State
from tunesmith.train.pace import LOST_SECONDS, SHARE

RANK = 16
TIMES = 5
SHAPES = {"135M (SmolLM2)": (30, 576, 192, 1536), "8B (Llama 3)": (32, 4096, 1024, 14336)}
"""Layers, hidden, width of keys and values, width of the feed-forward part."""
WHOLE = (49152, 576), (30, 3_540_000)
"""About all weights of the 135M Llama: embeddings and layers."""


def adapters(layers: int, hidden: int, kv: int, wide: int) -> dict[str, torch.Tensor]:
    """Random adapters."""
    sides = {"q": (hidden, hidden), "k": (hidden, kv), "v": (hidden, kv), "o": (hidden, hidden)}
    sides |= {"gate": (hidden, wide), "up": (hidden, wide), "down": (wide, hidden)}
    halves = {"A": lambda inputs, _: torch.randn(RANK, inputs), "B": lambda _, outputs: torch.randn(outputs, RANK)}
    return {
        f"model.layers.{layer}.{name}_proj.lora_{half}.weight": draw(inputs, outputs)
        for layer in range(layers)
        for name, (inputs, outputs) in sides.items()
        for half, draw in halves.items()
    }


def main(directory: Path) -> None:
    """Print a line for each model."""
    empty = RowSet(rows=0, tokens=0, trained_tokens=0, longest=0, ids="", mask="", offsets="")
    prepared = Prepared(
        training=empty, validation=empty, truncated_rows=0, dropped_rows=0, steps_per_epoch=1, steps=1, validate_at=()
    )
    measured = {f"adapters, {name}": adapters(*shape) for name, shape in SHAPES.items()}
    measured["all weights, 135M"] = {str(number): torch.randn(*shape) for number, shape in enumerate(WHOLE)}
    for name, weights in measured.items():
        count = sum(tensor.numel() for tensor in weights.values())
        state = {"exp_avg": torch.randn(count), "exp_avg_sq": torch.rand(count), "step": torch.tensor(1.0)}
        seconds = []
        with tempfile.TemporaryDirectory(dir=directory) as run:
            checkpoints = Checkpoints(Path(run), plan(), prepared)
            for step in range(1, TIMES + 1):
                before = time.monotonic()
                checkpoints.save(State(step=step), weights, state)
                seconds.append(time.monotonic() - before)
        middle = statistics.median(seconds)
        print(
            f"{name}: {count / 1e6:.1f} M trained, {12 * count / 1e6:.0f} MB, {middle:.2f} s "
            f"({min(seconds):.2f} to {max(seconds):.2f}): {100 * middle / LOST_SECONDS:.2f}% of the time at one a "
            f"minute, {middle / LOST_SECONDS / SHARE:.2f} of what is allowed"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
