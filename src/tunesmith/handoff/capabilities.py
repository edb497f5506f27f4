"""What the engine can do today, in two tables: a lawful spec that asks for more is refused as "not built yet".

Each row names the test that shows it. A value is compared as it stands in the spec; a field that is not listed here is
honoured in full.
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
    """() = none of its values yet."""
    proof: str
    """The test that shows it."""
    instead: str = ""
    """What to do where there is no value to use."""


@dataclass(frozen=True, slots=True)
class TrainedFamily:
    """A family of decoders that the engine trains, by LoRA and with all weights."""

    proof: str
    """The test that trains it."""
    packs: bool = True
    """Whether rows may share a sequence: only where nothing but attention looks at other tokens. A state that goes from
    token to token would let a row see the one before it."""


TRAINED_FAMILIES: dict[str, TrainedFamily] = {
    "llama": TrainedFamily("tests/train/test_run.py"),
}
"""By transformers' model_type."""

CAPABILITIES: tuple[Capability, ...] = (
    Capability("automodel", "training.training_type", ("sft",), "tests/train/test_run.py"),
    Capability("automodel", "training.finetuning_type", ("lora",), "tests/train/test_run.py"),
    Capability("automodel", "training.lora.merge", (False,), "tests/train/test_run.py"),
    Capability("automodel", "training.precision", (None, "bf16", "fp32"), "tests/train/test_run.py"),
    Capability("automodel", "training.attn_implementation", ("sdpa", "eager"), "tests/train/test_run.py"),
    Capability("automodel", "training.execution_profile", (None,), "tests/planning/test_every_knob_counts.py"),
    Capability("automodel", "batch.sequence_packing", (False,), "tests/planning/test_every_knob_counts.py"),
    Capability("automodel", "parallelism.num_nodes", (1,), "tests/planning/test_every_knob_counts.py"),
    Capability("automodel", "parallelism.num_gpus_per_node", (1,), "tests/planning/test_every_knob_counts.py"),
    Capability("unsloth", "model.load_in_4bit", (False,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "model.load_in_8bit", (False,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "model.dtype", ("auto", "bfloat16"), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "model.trust_remote_code", (False,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "model.device_map", (None,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "model.rope_scaling", (None,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "dataset.packing", (False,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "training.finetuning_type", ("lora",), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "training.lora.bias", ("none",), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "training.lora.use_rslora", (False,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "training.lora.use_dora", (False,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "training.lora.loftq_config", (None,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "training.lora.modules_to_save", (None,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "training.lora.layer_replication", (None,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "training.lora.init_lora_weights", (True,), "tests/planning/test_unsloth.py"),
    Capability(
        "unsloth",
        "schedule.lr_scheduler_type",
        ("linear", "cosine", "constant", "constant_with_warmup"),
        "tests/planning/test_unsloth.py",
    ),
    Capability("unsloth", "schedule.lr_scheduler_kwargs", (None,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "schedule.logging_steps", (1,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "schedule.save_steps", (None,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "schedule.eval_steps", (None,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "optimizer.optim", ("adamw_torch", "adamw_torch_fused"), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "optimizer.label_smoothing_factor", (0.0,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "optimizer.neftune_noise_alpha", (None,), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "hardware.precision", ("bf16",), "tests/planning/test_unsloth.py"),
    Capability("unsloth", "output.save_method", ("lora",), "tests/planning/test_unsloth.py"),
    Capability(
        "rl",
        "training.type",
        (),
        "tests/planning/test_rl.py",
        instead="automodel, which learns from rows or from a teacher, until it is",
    ),
)
