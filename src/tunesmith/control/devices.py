"""The devices that jobs train on: the machine's GPUs, or CPU slots where it has none."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

QUERY = ("nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader")
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
    """What is here now. Blocking.

    A server that was itself given some GPUs (CUDA_VISIBLE_DEVICES, by index or by the beginning of a UUID) has those.
    """
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = {} if allowed is not None and allowed.strip() in ("", "-1") else _gpus()
    given = allowed.replace(" ", "").split(",") if allowed else []
    uuids = tuple(name for name in given if name.startswith("GPU-"))
    indices = [index for index, uuid in gpus.items() if not given or index in given or uuid.startswith(uuids)]
    if indices:
        return Devices(tuple(f"gpu:{index}" for index in indices))
    return Devices(tuple(f"cpu:{slot}" for slot in range(cpu_slots)))


def _gpus() -> dict[str, str]:
    """Index and UUID of each."""
    try:
        asked = subprocess.run(QUERY, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = asked.stdout.splitlines() if asked.returncode == 0 else []
    pairs = (line.replace(" ", "").split(",") for line in lines)
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[0].isdigit()}
