"""Keys and values of the rows in a batch: preallocated, one slot per row, grown on demand within a budget.

Slots are dense: the rows of a batch lie in slots 0 .. rows - 1, so that decoding reads one slice without gathering.

Shapes: S slots, G key-value heads, C positions a slot has room for, D head size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

FIRST_CAPACITY = 256
"""Positions a slot has at first; it doubles from there."""
SHARE_OF_FREE_MEMORY = 0.5
"""Part of the memory that is free at start-up which keys and values may take."""


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer remembers of one position."""

    heads: int
    key_size: int
    value_size: int


class KeyValues:
    """The store. `keys[layer]` is [S, G, C, D], `values[layer]` likewise; what lies past a row's length is
    stale but finite: attention weighs it with 0, and 0 times NaN would be NaN."""

    def __init__(
        self, shapes: Sequence[LayerShape], dtype: torch.dtype, device: torch.device, most_positions: int
    ) -> None:
        self._shapes = tuple(shapes)
        self._dtype = dtype
        self._device = device
        self._most_positions = most_positions
        self.clear()

    def clear(self) -> None:
        """Forget all rows and give the memory back."""
        self.slots = 0
        self.capacity = 0
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def reserve(self, rows: int, length: int) -> bool:
        """Make room for `rows` rows of up to `length` positions; False, with nothing changed, if the budget forbids."""
        if rows <= self.slots and length <= self.capacity:
            return True
        many = max(self.slots, _next_power_of_two(rows))
        long = max(self.capacity, FIRST_CAPACITY, _next_power_of_two(length))
        for slots, capacity in ((many, long), (rows, long), (rows, length)):
            if slots * capacity <= self._most_positions:
                self._grow(slots, capacity)
                return True
        return False

    def move(self, source: int, target: int, length: int) -> None:
        """Put the row in slot `source`, of `length` positions, into slot `target`."""
        for store in (*self.keys, *self.values):
            store[target, :, :length] = store[source, :, :length]

    def wipe(self, slot: int) -> None:
        """Forget a row whose numbers may not be finite."""
        for store in (*self.keys, *self.values):
            store[slot] = 0

    def _zeros(self, *shape: int) -> torch.Tensor:
        if self._device.type != "cpu":
            return torch.zeros(shape, dtype=self._dtype, device=self._device)
        # numpy asks the system for zeroed pages, which take no memory until they are written; torch would write them.
        size = math.prod(shape) * self._dtype.itemsize
        return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(self._dtype).view(shape)

    def _grow(self, slots: int, capacity: int) -> None:
        old_slots, old_capacity = min(self.slots, slots), min(self.capacity, capacity)
        old = (self.keys, self.values)
        fresh: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        for layer, shape in enumerate(self._shapes):
            for side, size in enumerate((shape.key_size, shape.value_size)):
                store = self._zeros(slots, shape.heads, capacity, size)
                if old[side]:
                    store[:old_slots, :, :old_capacity] = old[side][layer][:old_slots, :, :old_capacity]
                fresh[side].append(store)
        self.keys, self.values = fresh
        self.slots, self.capacity = slots, capacity


def position_bytes(shapes: Sequence[LayerShape], dtype: torch.dtype) -> int:
    """Bytes that one position of one row takes over all layers."""
    return sum(shape.heads * (shape.key_size + shape.value_size) for shape in shapes) * dtype.itemsize


def free_bytes(device: torch.device) -> int:
    """Memory that nobody uses now; a quarter of all of it where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


def _next_power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
