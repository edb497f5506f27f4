"""What a job needs on disk before it may start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunesmith.handoff.plan import Plan
from tunesmith.planning.facts import ModelFacts

ADAPTER_SHARE = 1.5
"""Of the base's size, for base and adapter."""
FULL_SHARE = 3.0
"""Of the base's size, for base, checkpoint and output, where all weights are trained or an adapter is merged."""
OPTIMIZER_BYTES = 12
"""A trained parameter in a checkpoint: its float32 master and the two moments of Adam."""
CHECKPOINTS = 2
"""Kept at once: the last one stays until the next is whole."""


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """Bytes of a job, all in all and beside what is there already."""

    total: int
    missing: int


def trained_parameters(plan: Plan, facts: ModelFacts) -> int:
    """How many numbers the plan trains: of an adapter rank x (in + out) for each module."""
    adapted = set(plan.adapter.modules)
    sizes = [each.in_features + each.out_features for each in facts.linears if each.name in adapted]
    return plan.adapter.rank * sum(sizes)


def disk_need(
    finetuning_type: Literal["lora", "lora_merged", "all_weights"],
    *,
    base: int,
    data: int,
    here: int,
    trained_parameters: int,
) -> DiskNeed:
    """`base` and `data` are the sizes of the inputs in bytes, `here` the part of both that is on disk already.

    The larger of the rule of thumb (1.5 or 3 times the base) and of what will be written: two checkpoints and the
    output. The tokenised rows are counted as large as the data.
    """
    share = ADAPTER_SHARE if finetuning_type == "lora" else FULL_SHARE
    output = 2 * trained_parameters if finetuning_type == "lora" else base
    written = base + CHECKPOINTS * OPTIMIZER_BYTES * trained_parameters + output
    total = max(int(share * base), written) + 2 * data
    return DiskNeed(total=total, missing=max(0, total - here))
