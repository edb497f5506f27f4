"""The devices that jobs train on: the machine's GPUs, or CPU slots where it has none."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

QUERY = ("nvidia-smi", "--query-gpu=index", "--format=csv,noheader")
PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Devices:
    """What one machine has."""

    names: tuple[str, ...]
    """`gpu:0`, `gpu:1`, or `cpu:0`: one lease each."""

    @property
    def have_gpus(self) -> bool:
        """Whether they are GPUs."""
        return bool(self.names) and self.names[0].startswith("gpu:")

    def visible(self, taken: tuple[str, ...]) -> dict[str, str]:
        """The environment in which a process sees these devices and no others."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(index_of(name) for name in taken) if self.have_gpus else ""}


def index_of(name: str) -> str:
    """`1` for `gpu:1`."""
    return name.partition(":")[2]


def discover(cpu_slots: int) -> Devices:
    """What is here now. A server that was itself given some GPUs (CUDA_VISIBLE_DEVICES) has those. Blocking."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    indices = [] if allowed is not None and allowed.strip() in ("", "-1") else _gpus()
    if allowed:
        indices = [index for index in indices if index in allowed.replace(" ", "").split(",")]
    if indices:
        return Devices(tuple(f"gpu:{index}" for index in indices))
    return Devices(tuple(f"cpu:{slot}" for slot in range(cpu_slots)))


def _gpus() -> list[str]:
    try:
        asked = subprocess.run(QUERY, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = asked.stdout.split() if asked.returncode == 0 else []
    return [line for line in lines if line.isdigit()]
