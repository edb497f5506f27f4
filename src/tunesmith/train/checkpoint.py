"""What a run needs to go on, and what it may export: one directory for each saved step, complete or not there.

    checkpoints/step-000049/
      adapter_config.json, adapter_model.safetensors    the weights, in PEFT's format, float32
      optimizer.safetensors                             Adam's running means, flat, in the order of the plan's modules
      state.json                                        the numbers: step, tokens, seconds, best step and loss

No generator state: everything random is drawn from (seed, step, row). A directory is written under a temporary name,
flushed to disk and renamed; the best (lowest validation loss) and the last are kept.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from tunesmith.handoff.base import HandedFile
from tunesmith.model.peft_files import AdapterWeights, write_adapter

CHECKPOINTS = "checkpoints"
OPTIMIZER_FILE, STATE_FILE = "optimizer.safetensors", "state.json"


class State(HandedFile):
    """Where a run stands after a step."""

    step: int
    tokens: int
    """Real tokens learned from so far."""
    seconds: float
    """Time spent training so far."""
    best_step: int
    """The step with the lowest validation loss so far; 0 = none was measured."""
    best_loss: float | None
    """Its loss; None when none was measured."""


def step_directory(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / CHECKPOINTS / f"step-{step:06d}"


def save_checkpoint(
    run: Path, state: State, weights: AdapterWeights, optimizer: dict[str, Tensor], model_modules: list[str]
) -> Path:
    """Write the checkpoint of `state.step`, then drop those that are neither it nor the best; returns its directory."""
    final = step_directory(run, state.step)
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_adapter(temporary, weights, model_modules)
    save_file(optimizer, temporary / OPTIMIZER_FILE)
    state.write(temporary / STATE_FILE)
    publish(temporary, final)
    for other in complete_checkpoints(run):
        if other not in (final, step_directory(run, state.best_step)):
            shutil.rmtree(other)
    return final


def complete_checkpoints(run: Path) -> list[Path]:
    """All checkpoint directories that were finished, oldest first."""
    return sorted((run / CHECKPOINTS).glob("step-*"))


def publish(temporary: Path, final: Path) -> None:
    """Flush all files of `temporary` to disk and give the directory its name, replacing one of that name."""
    for path in (*temporary.iterdir(), temporary):
        _flush(path)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _flush(final.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
