"""Bytes: how many a piece of work holds at its peak, and how many this machine still has for it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def available_bytes(device: torch.device) -> int | None:
    """Bytes that this process can still take on the device; None where the system does not say (macOS).

    On a CPU: what the kernel can give without swapping, and no more than any limit above this process leaves.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    known = _table(PROC / "meminfo")
    if "MemAvailable" not in known:
        return None
    return max(0, min(1024 * known["MemAvailable"], *_left_by_limits()))


def _left_by_limits() -> Iterator[int]:
    """What the limits of this process's control groups leave; files that are only cached do not count as used."""
    yield 1 << 62
    for line in _text(PROC / "self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            names, root = ("memory.max", "memory.current", "inactive_file"), CGROUPS
        elif "memory" in kinds.split(","):
            names, root = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"), CGROUPS / "memory"
        else:
            continue
        for group in (root / path.lstrip("/"), *(root / path.lstrip("/")).parents):
            limit, used = (_text(group / name).strip() for name in names[:2])
            if limit.isdecimal() and used.isdecimal():
                yield int(limit) - int(used) + _table(group / "memory.stat").get(names[2], 0)
            if group == root:
                break


def _table(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    pairs = (line.replace(":", " ").split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) > 1 and pair[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes of tensors that `work` made and held at one moment, gradients included; the same each time.

    What an operation needs for itself and gives back is not seen. `work` runs in this thread.
    """
    with _Seeing() as seen:
        work()
    return seen.peak


class _Seeing(TorchDispatchMode):
    """Counts each storage from the operation that returns it first until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known = weakref.WeakSet[torch.UntypedStorage]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        old = [tensor.untyped_storage() for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and all(tensor.untyped_storage() is not storage for storage in old):
                self._see(tensor.untyped_storage())
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        weakref.finalize(storage, self._gone, storage.nbytes())
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)

    def _gone(self, size: int) -> None:
        self._now -= size
