"""An adapter on disk, in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

Plain `peft.PeftModel.from_pretrained` loads what is written here; what is read here may come from anywhere, so
everything that would change the numbers and that we do not compute is refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.handoff.peft import CONFIG_FILE, WEIGHTS_FILE, adapted, keys_of, read_config, refused


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """An adapter: y = W x + scale * B A x for each module named."""

    rank: int
    alpha: float
    scale: float
    """alpha / rank, or alpha / sqrt(rank) for rank-stabilised adapters."""
    modules: dict[str, tuple[Tensor, Tensor]]
    """Full module name -> (A_rI, B_Or)."""
    base_model_name_or_path: str


def write_adapter(
    directory: Path,
    weights: AdapterWeights,
    model_modules: Iterable[str],
    beside: Mapping[str, Tensor] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Write both files into `directory`, which exists. `model_modules`: all module names of the base model.

    What is more than plain LoRA comes `beside` it: tensors by the names PEFT saves them under, and the settings of the
    configuration that say what they are.
    """
    tensors = dict(beside or {})
    for name, pair in weights.modules.items():
        tensors |= zip(keys_of(name), pair, strict=True)
    saved = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    save_file(saved, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": weights.base_model_name_or_path,
        "r": weights.rank,
        "lora_alpha": weights.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": not math.isclose(weights.scale, weights.alpha / weights.rank),
        "use_dora": False,
        "inference_mode": True,
        "target_modules": _targets(list(weights.modules), model_modules),
        **(changes or {}),
    }
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_adapter(directory: Path) -> AdapterWeights:
    """The adapter in `directory`, on the CPU; EngineError (ModelLoadError) that names what cannot be honoured."""
    try:
        config = read_config((directory / CONFIG_FILE).read_bytes())
    except FileNotFoundError:
        raise refused(f"there is no {CONFIG_FILE}") from None
    rank, alpha = config["r"], config["lora_alpha"]
    if not (directory / WEIGHTS_FILE).is_file():
        raise refused(f"there is no {WEIGHTS_FILE}; save the adapter as safetensors")
    try:
        tensors = load_file(directory / WEIGHTS_FILE)
    except SafetensorError as error:
        raise refused(f"{WEIGHTS_FILE} cannot be read: {error}") from None
    modules: dict[str, tuple[Tensor, Tensor]] = {}
    for name in adapted({key: tensor.shape for key, tensor in tensors.items()}, rank):
        a, b = keys_of(name)
        modules[name] = tensors[a], tensors[b]
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return AdapterWeights(rank, alpha, scale, modules, str(config.get("base_model_name_or_path") or ""))


def _targets(names: list[str], model_modules: Iterable[str]) -> list[str]:
    """Last parts of the names (`q_proj`) where they pick exactly these modules, else the full names."""
    leaves = {name.rpartition(".")[2] for name in names}
    picked = {name for name in model_modules if name.rpartition(".")[2] in leaves}
    return sorted(leaves) if picked == set(names) else sorted(names)
