"""Which rows each optimizer step of a prepared run learns from, one by one or in packs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tunesmith.data.packs import PackedRows
from tunesmith.data.schedule import Indices, rows_of_step
from tunesmith.handoff.plan import Plan
from tunesmith.handoff.prepared import Prepared


class Order:
    """The order of a run's rows.

    Step s of epoch e holds rows `permutation(rows, seed, e)[s * G : (s + 1) * G]`; where rows are packed, all rows of
    packs `permutation(packs, seed, e)[s * P : (s + 1) * P]`, with P packs a step.
    """

    def __init__(self, run: Path, prepared: Prepared, plan: Plan) -> None:
        """Read the packs, where there are some."""
        packs = prepared.packs
        self._packs = PackedRows.read(run, packs) if packs else None
        self._count = packs.packs if packs else prepared.training.rows
        self._per_step = packs.per_step if packs else plan.schedule.rows_per_step
        self._seed = plan.schedule.seed

    def rows_of_step(self, step: int) -> Indices:
        """Indices of the training rows that step `step` (1-based) learns from, in drawn order."""
        drawn = rows_of_step(step, self._count, self._per_step, self._seed)
        if self._packs is None:
            return drawn
        return np.concatenate([self._packs.rows(int(pack)) for pack in drawn]).astype(np.int64)
