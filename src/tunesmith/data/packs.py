"""Puts rows into full sequences, so that a step holds about as many tokens as any other.

A pack is some rows that together have at most `limit` tokens; no row sees another one in it. Best fit decreasing
(Johnson, 1973): the rows of a window, longest first, each into the fullest pack that still has room for it.
"""

from __future__ import annotations

import bisect
import os
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from tunesmith.data.schedule import Indices, permutation
from tunesmith.handoff.prepared import Packs

NAMES = {"rows": "packs.rows.bin", "offsets": "packs.offsets.bin"}


class PackedRows:
    """Which rows each pack holds."""

    def __init__(self, rows: npt.NDArray[np.int32], offsets: Indices) -> None:
        """As `handoff.prepared.Packs` describes the two arrays."""
        self._rows, self._offsets = rows, offsets

    @classmethod
    def read(cls, run: Path, packs: Packs) -> Self:
        """What a prepared run has; the files of `packs` are relative to `run`."""
        return cls(np.fromfile(run / packs.rows, "<i4"), np.fromfile(run / packs.offsets, "<i8"))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def rows(self, pack: int) -> npt.NDArray[np.int32]:
        """The rows of a pack, longest first."""
        return self._rows[self._offsets[pack] : self._offsets[pack + 1]]

    def write(self, directory: Path, final: str, per_step: int) -> Packs:
        """Put both files into `directory`, flushed to disk; the result names them below `final`, where they go."""
        for part, values in (("rows", self._rows.astype("<i4")), ("offsets", self._offsets.astype("<i8"))):
            with (directory / NAMES[part]).open("wb") as file:
                file.write(values.tobytes())
                file.flush()
                os.fsync(file.fileno())
        return Packs(packs=len(self), per_step=per_step, **{part: f"{final}/{name}" for part, name in NAMES.items()})


def pack(lengths: npt.NDArray[np.int64], limit: int, window: int, seed: int) -> PackedRows:
    """Rows of these lengths, each at most `limit`, in packs: each row once, the same for the same arguments.

    Windows of `window` rows are taken in the order that epoch 0 would draw them in; no pack reaches into the next one.
    """
    order = permutation(len(lengths), seed, 0)
    packs: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(order), window):
        members = order[start : start + window]
        packs += [members[places] for places in best_fit(lengths[members].tolist(), limit)]
    rows = np.concatenate(packs) if packs else order
    return PackedRows(rows.astype(np.int32), np.cumsum([0, *map(len, packs)], dtype=np.int64))


def best_fit(lengths: list[int], limit: int) -> list[list[int]]:
    """Places in `lengths`, in groups of at most `limit` tokens, or one row, by best fit decreasing; longest first."""
    packs: list[list[int]] = []
    by_space: dict[int, list[int]] = {}  # packs with so much room left
    spaces: list[int] = []  # its keys, ascending: at most `limit` of them, however many packs there are
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        length = lengths[place]
        found = bisect.bisect_left(spaces, length)
        if found == len(spaces):
            space, chosen = limit, len(packs)
            packs.append([])
        else:
            space = spaces[found]
            chosen = by_space[space].pop()
            if not by_space[space]:
                del by_space[space], spaces[found]
        packs[chosen].append(place)
        left = space - length
        if left not in by_space:
            by_space[left] = []
            bisect.insort(spaces, left)
        by_space[left].append(chosen)
    return packs


def packs_per_step(rows_per_step: int, packs: int, rows: int) -> int:
    """Packs that hold `rows_per_step` rows on average, at least one."""
    return max(1, round(rows_per_step * packs / rows))
