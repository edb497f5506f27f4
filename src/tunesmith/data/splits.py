"""Which rows are held back for validation when no validation files are given."""

from __future__ import annotations

import numpy as np

from tunesmith.data.schedule import permutation

ROWS_FOR_ONE = 10
"""From so many rows on, at least one is held back."""

_SPLIT_EPOCH = -1
"""The split is drawn like an order of rows, of an epoch that is never trained."""


def held_back(rows: int, fraction: float, seed: int) -> frozenset[int]:
    """Indices of the validation rows: `fraction` of all, rounded down, at least one of ten, never all."""
    count = int(rows * fraction + 1e-9)
    if not count and fraction > 0 and rows >= ROWS_FOR_ONE:
        count = 1
    chosen: np.ndarray = permutation(rows, seed, _SPLIT_EPOCH)[: min(count, rows - 1)] if rows else np.empty(0, int)
    return frozenset(int(index) for index in chosen)
