"""What the engine can do today, as one table: a lawful spec that asks for more is refused as "not built yet".

Each row names the test that trains it. A value is compared as it stands in the spec; a field that is not listed here
is either honoured in full or has an entry in `ONLY_DEFAULT`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Capability:
    """The values of one field that the engine honours."""

    dialect: str
    field: str
    """Dotted path in the spec."""
    values: tuple[Any, ...]
    proof: str
    """The test that shows it."""


CAPABILITIES: tuple[Capability, ...] = (
    Capability("automodel", "training.training_type", ("sft",), "tests/train/test_run.py"),
    Capability("automodel", "training.finetuning_type", ("lora",), "tests/train/test_run.py"),
    Capability("automodel", "training.lora.merge", (False,), "tests/train/test_run.py"),
    Capability("automodel", "training.precision", (None, "bf16", "fp32"), "tests/train/test_run.py"),
    Capability("automodel", "training.attn_implementation", ("sdpa", "eager"), "tests/train/test_run.py"),
    Capability("automodel", "training.execution_profile", (None,), "tests/planning/test_every_knob_counts.py"),
    Capability("automodel", "dataset.prompt_template", (None,), "tests/planning/test_every_knob_counts.py"),
    Capability("automodel", "batch.sequence_packing", (False,), "tests/planning/test_every_knob_counts.py"),
    Capability("automodel", "parallelism.num_nodes", (1,), "tests/planning/test_every_knob_counts.py"),
    Capability("automodel", "parallelism.num_gpus_per_node", (1,), "tests/planning/test_every_knob_counts.py"),
    Capability("automodel", "integrations.wandb", (None,), "tests/planning/test_every_knob_counts.py"),
    Capability("automodel", "integrations.mlflow", (None,), "tests/planning/test_every_knob_counts.py"),
    Capability("automodel", "deployment_config", (None,), "tests/planning/test_every_knob_counts.py"),
)
