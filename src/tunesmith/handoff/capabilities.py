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


_TRAINS = "tests/train/test_families.py"
TRAINED_FAMILIES: dict[str, TrainedFamily] = {
    "llama": TrainedFamily(_TRAINS),
    "mistral": TrainedFamily(_TRAINS),
    "mixtral": TrainedFamily(_TRAINS),
    "qwen2": TrainedFamily(_TRAINS),
    "qwen2_moe": TrainedFamily(_TRAINS),
    "qwen3": TrainedFamily(_TRAINS),
    "qwen3_moe": TrainedFamily(_TRAINS),
    "phi": TrainedFamily(_TRAINS),
    "phi3": TrainedFamily(_TRAINS),
    "gemma": TrainedFamily(_TRAINS),
    "gemma2": TrainedFamily(_TRAINS),
    "gemma3_text": TrainedFamily(_TRAINS),
    "gpt_oss": TrainedFamily(_TRAINS),
    "nemotron": TrainedFamily(_TRAINS),
    "nemotron_h": TrainedFamily(_TRAINS, packs=False),
    "granite": TrainedFamily(_TRAINS),
    "cohere": TrainedFamily(_TRAINS),
    "cohere2": TrainedFamily(_TRAINS),
    "olmo2": TrainedFamily(_TRAINS),
    "olmo3": TrainedFamily(_TRAINS),
    "smollm3": TrainedFamily(_TRAINS),
    "starcoder2": TrainedFamily(_TRAINS),
    "stablelm": TrainedFamily(_TRAINS),
    "seed_oss": TrainedFamily(_TRAINS),
}
"""By transformers' model_type."""

_RUN = "tests/train/test_run.py"
_MODELS = "tests/train/test_whole.py"
_VARIANTS = "tests/train/test_variant_runs.py"
_PACKED = "tests/train/test_packed.py"
_REFUSED = "tests/planning/test_unsloth.py"
_ONE_PLACE = "tests/planning/test_every_knob_counts.py"

CAPABILITIES: tuple[Capability, ...] = (
    Capability("automodel", "training.training_type", ("sft",), _RUN),
    Capability("automodel", "training.finetuning_type", ("lora", "lora_merged", "all_weights"), _MODELS),
    Capability("automodel", "training.lora.merge", (False, True), _MODELS),
    Capability("automodel", "training.precision", (None, "bf16", "fp16", "fp32"), _MODELS),
    Capability("automodel", "training.attn_implementation", ("sdpa", "eager"), _RUN),
    Capability("automodel", "training.execution_profile", (None,), _ONE_PLACE),
    Capability("automodel", "batch.sequence_packing", (False, True), _PACKED),
    Capability("automodel", "parallelism.num_nodes", (1,), _ONE_PLACE),
    Capability("automodel", "parallelism.num_gpus_per_node", (1,), _ONE_PLACE),
    Capability("unsloth", "model.load_in_4bit", (False,), _REFUSED),
    Capability("unsloth", "model.load_in_8bit", (False,), _REFUSED),
    Capability("unsloth", "model.trust_remote_code", (False,), _REFUSED),
    Capability("unsloth", "model.device_map", (None,), _REFUSED),
    Capability("unsloth", "model.rope_scaling", (None,), _REFUSED),
    Capability("unsloth", "dataset.packing", (False, True), _PACKED),
    Capability("unsloth", "training.finetuning_type", ("lora", "all_weights"), _MODELS),
    Capability(
        "unsloth", "training.use_gradient_checkpointing", ("unsloth", "true", "false"), "tests/model/test_recompute.py"
    ),
    Capability("unsloth", "training.lora.bias", ("none", "all", "lora_only"), _VARIANTS),
    Capability("unsloth", "training.lora.use_rslora", (False, True), "tests/model/test_lora.py"),
    Capability("unsloth", "training.lora.use_dora", (False, True), _VARIANTS),
    Capability("unsloth", "training.lora.loftq_config", (None,), _REFUSED),
    Capability("unsloth", "training.lora.layer_replication", (None,), _REFUSED),
    Capability("unsloth", "training.lora.init_lora_weights", (True, False, "gaussian", "pissa", "olora"), _VARIANTS),
    Capability("unsloth", "optimizer.optim", ("adamw_torch", "adamw_torch_fused", "sgd"), "tests/train/test_optim.py"),
    Capability("unsloth", "hardware.precision", ("bf16", "fp16"), _MODELS),
    Capability("unsloth", "output.save_method", ("lora", "merged_16bit"), _MODELS),
    Capability(
        "rl",
        "training.type",
        (),
        "tests/planning/test_rl.py",
        instead="automodel, which learns from rows or from a teacher, until it is",
    ),
)
