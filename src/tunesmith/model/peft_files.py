"""An adapter on disk, in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

Plain `peft.PeftModel.from_pretrained` loads what is written here; what is read here may come from anywhere, so
everything that would change the numbers and that we do not compute is refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.errors import EngineError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"


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


def write_adapter(directory: Path, weights: AdapterWeights, model_modules: Iterable[str]) -> None:
    """Write both files into `directory`, which exists. `model_modules`: all module names of the base model."""
    tensors: dict[str, Tensor] = {}
    for name, (a_rI, b_Or) in weights.modules.items():
        tensors[f"{_PREFIX}{name}{_A}"] = a_rI.detach().to("cpu").contiguous()
        tensors[f"{_PREFIX}{name}{_B}"] = b_Or.detach().to("cpu").contiguous()
    save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": weights.base_model_name_or_path,
        "r": weights.rank,
        "lora_alpha": weights.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
        "target_modules": _targets(list(weights.modules), model_modules),
    }
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_adapter(directory: Path) -> AdapterWeights:
    """The adapter in `directory`, on the CPU; EngineError (ModelLoadError) that names what cannot be honoured."""
    config = _read_config(directory)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
        raise _refused(f"r ({rank}) and lora_alpha ({alpha}) must be numbers, r at least 1")
    if not (directory / WEIGHTS_FILE).is_file():
        raise _refused(f"there is no {WEIGHTS_FILE}; save the adapter as safetensors")
    try:
        tensors = load_file(directory / WEIGHTS_FILE)
    except SafetensorError as error:
        raise _refused(f"{WEIGHTS_FILE} cannot be read: {error}") from None
    return AdapterWeights(
        rank=rank,
        alpha=alpha,
        scale=alpha / (math.sqrt(rank) if config.get("use_rslora") else rank),
        modules=_pairs(tensors, rank),
        base_model_name_or_path=str(config.get("base_model_name_or_path") or ""),
    )


def _pairs(tensors: dict[str, Tensor], rank: int) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of each module; refuses a lone half, a foreign tensor, a rank that is not the configuration's."""
    strange = [key for key in tensors if not (key.startswith(_PREFIX) and key.endswith((_A, _B)))]
    if strange:
        raise _refused(f"{WEIGHTS_FILE} holds {min(strange)}, which is neither {_A} nor {_B} of a module")
    names = sorted({key.removeprefix(_PREFIX).removesuffix(_A).removesuffix(_B) for key in tensors})
    if not names:
        raise _refused(f"{WEIGHTS_FILE} is empty")
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name in names:
        a_rI, b_Or = (tensors.get(f"{_PREFIX}{name}{half}") for half in (_A, _B))
        if a_rI is None or b_Or is None:
            raise _refused(f"{WEIGHTS_FILE} holds only one half of {name}")
        if a_rI.dim() != 2 or b_Or.dim() != 2 or a_rI.shape[0] != rank or b_Or.shape[1] != rank:
            raise _refused(
                f"{name} has shapes {tuple(a_rI.shape)} and {tuple(b_Or.shape)}, which do not fit r = {rank}"
            )
        pairs[name] = (a_rI, b_Or)
    return pairs


_HONOURED: dict[str, Callable[[Any], bool]] = {
    "peft_type": lambda value: value == "LORA",
    "bias": lambda value: value in (None, "none"),
    "init_lora_weights": lambda value: not str(value).startswith(("pissa", "olora", "corda", "loftq", "lora_ga")),
    "use_dora": lambda value: not value,
    "fan_in_fan_out": lambda value: not value,
    "lora_bias": lambda value: not value,
    "modules_to_save": lambda value: not value,
    "rank_pattern": lambda value: not value,
    "alpha_pattern": lambda value: not value,
    "layer_replication": lambda value: not value,
    "trainable_token_indices": lambda value: not value,
    "target_parameters": lambda value: not value,
    "use_qalora": lambda value: not value,
    "alora_invocation_tokens": lambda value: not value,
    "arrow_config": lambda value: not value,
}
"""Settings that change what an adapter computes, and the values under which it is the plain formula."""


def _read_config(directory: Path) -> dict[str, Any]:
    try:
        config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _refused(f"there is no {CONFIG_FILE}") from None
    except ValueError as error:
        raise _refused(f"{CONFIG_FILE} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise _refused(f"{CONFIG_FILE} is not a JSON object")
    for key, lawful in _HONOURED.items():
        if key in config and not lawful(config[key]):
            raise _refused(f"{CONFIG_FILE} {key} ({config[key]!r}) is not supported: plain LoRA only")
    return config


def _targets(names: list[str], model_modules: Iterable[str]) -> list[str]:
    """Last parts of the names (`q_proj`) where they pick exactly these modules, else the full names."""
    leaves = {name.rpartition(".")[2] for name in names}
    picked = {name for name in model_modules if name.rpartition(".")[2] in leaves}
    return sorted(leaves) if picked == set(names) else sorted(names)


def _refused(why: str) -> EngineError:
    return EngineError(f"the adapter cannot be used: {why}", "ModelLoadError")
