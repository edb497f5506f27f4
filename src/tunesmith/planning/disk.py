"""What a job needs on disk before it may start."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.handoff.plan import Plan
from tunesmith.planning.facts import ModelFacts
from tunesmith.planning.variants import trained_biases

ADAPTER_SHARE = 1.5
"""Of the base's size, for base and adapter: a rule of thumb."""
MODEL_SHARE = 3.0
"""Of the base's size, for base, checkpoint and output, where the result is a model."""
WEIGHT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
CHECKPOINTS = {"best": 4, "last": 3}
"""On disk at once: the newest two, the best one where that is the result, and the one that is being written."""


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """Bytes of a job, all in all and beside what is there already."""

    total: int
    missing: int


def disk_need(plan: Plan, facts: ModelFacts, *, base: int, data: int, here: int) -> DiskNeed:
    """`base` and `data` are the sizes of the inputs in bytes, `here` the part of both that is on disk already.

    The larger of the rule of thumb (1.5 or 3 times the base) and of what will be written: the checkpoints and the
    output. The tokenised rows are counted as large as the data.
    """
    share = ADAPTER_SHARE if plan.result.form == "adapter" else MODEL_SHARE
    checkpoint = WEIGHT_BYTES["float32"] * (1 + plan.optimizer.means) * trained_parameters(plan, facts)
    written = base + CHECKPOINTS[plan.result.step] * checkpoint + _output(plan, facts, base)
    total = max(int(share * base), written) + 2 * data
    return DiskNeed(total=total, missing=max(0, total - here))


def trained_parameters(plan: Plan, facts: ModelFacts) -> int:
    """How many numbers the plan trains: of an adapter rank x (in + out) for each module, and what is beside it."""
    part = plan.adapter
    if part is None:
        return facts.parameters
    adapted, whole = set(part.modules), set(part.whole_modules)
    sizes = [(each.in_features, each.out_features) for each in facts.linears if each.name in adapted]
    return (
        part.rank * sum(into + out for into, out in sizes)
        + part.decomposed * sum(out for _, out in sizes)
        + sum(each.parameters for each in facts.modules if each.name in whole)
        + trained_biases(part, facts)
    )


def _output(plan: Plan, facts: ModelFacts, base: int) -> int:
    """Bytes of the artifact's weights."""
    if plan.result.form == "model":
        return base if plan.result.dtype == "base" else WEIGHT_BYTES[plan.result.dtype] * facts.parameters
    doubled = plan.adapter is not None and plan.adapter.saved_rank_and_alpha[0] > plan.adapter.rank
    return WEIGHT_BYTES["float32"] * trained_parameters(plan, facts) * (2 if doubled else 1)
