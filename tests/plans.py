"""A small lawful plan, with any part replaced."""

from __future__ import annotations

from typing import Any

from tests.models import CHATML, linear_names
from tunesmith.handoff.plan import (
    DataPart,
    EachEpoch,
    Epochs,
    LoraPart,
    ModelPart,
    ObjectivePart,
    OptimizerPart,
    Plan,
    ResultPart,
    SchedulePart,
)

PARTS: dict[str, Any] = {
    "model": ModelPart(name="default/tiny", attention="sdpa", compute="fp32"),
    "data": DataPart(chat_template=CHATML, sequence_limit=64, validation="split", split_fraction=0.0, seed=7),
    "adapter": LoraPart(rank=4, alpha=8, dropout=0.0, modules=linear_names()),
    "optimizer": OptimizerPart(
        name="adam",
        learning_rate=0.01,
        min_learning_rate=0.001,
        weight_decay=0.01,
        beta1=0.9,
        beta2=0.999,
        eps=1e-5,
        warmup_steps=2,
        decay="cosine",
        max_grad_norm=1.0,
    ),
    "schedule": SchedulePart(
        stop=Epochs(epochs=2), validate_at=EachEpoch(), rows_per_step=4, tokens_per_pass=100, seed=7
    ),
    "objective": ObjectivePart(),
    "result": ResultPart(),
}


def plan(**changes: dict[str, Any] | None) -> Plan:
    """The plan above; `plan(optimizer={"name": "adamw"})` replaces fields of a part.

    With `adapter=None` all weights are trained, and the result is a model.
    """
    parts = {name: part.model_copy(update=changes.get(name) or {}) for name, part in PARTS.items()}
    if "adapter" in changes and changes["adapter"] is None:
        parts |= {"adapter": None, "result": parts["result"].model_copy(update={"form": "model"})}
    return Plan(run="job-1", method="sft", **parts)
