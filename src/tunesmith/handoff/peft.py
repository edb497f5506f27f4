"""PEFT's format of an adapter, as far as this platform honours it: `adapter_config.json` and the weights' names.

An adapter may come from anywhere, so everything that would change the numbers and that the engine does not compute is
refused by name: when the adapter is made known, and again when it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunesmith.errors import EngineError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLED_WEIGHTS_FILE = "adapter_model.bin"
PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"
RANK_LIMIT = 1_000_000
ALPHA_LIMIT = 1_000_000_000

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


def read_config(content: bytes) -> dict[str, Any]:
    """adapter_config.json; EngineError names the setting that is not honoured. `r` and `lora_alpha` are numbers."""
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise refused(f"{CONFIG_FILE} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise refused(f"{CONFIG_FILE} is not a JSON object")
    for key, lawful in _HONOURED.items():
        if key in config and not lawful(config[key]):
            raise refused(f"{CONFIG_FILE} {key} ({str(config[key])[:200]!r}) is not supported: plain LoRA only")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= RANK_LIMIT:
        raise refused(f"{CONFIG_FILE} r ({str(rank)[:80]}) must be a whole number from 1 to {RANK_LIMIT:,}")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha <= ALPHA_LIMIT:
        raise refused(f"{CONFIG_FILE} lora_alpha ({str(alpha)[:80]}) must be a number above 0, at most {ALPHA_LIMIT:,}")
    return config


def adapted(shapes: Mapping[str, Sequence[int]], rank: int) -> dict[str, tuple[int, int]]:
    """The modules that an adapter changes, each with its inputs and outputs, by the shapes of its tensors.

    EngineError names a lone half, a foreign tensor, or a rank that is not the configuration's.
    """
    strange = [key for key in shapes if not (key.startswith(PREFIX) and key.endswith((A, B)))]
    if strange:
        raise refused(f"{WEIGHTS_FILE} holds {min(strange)}, which is neither {A} nor {B} of a module")
    names = sorted({key.removeprefix(PREFIX).removesuffix(A).removesuffix(B) for key in shapes})
    if not names:
        raise refused(f"{WEIGHTS_FILE} is empty")
    modules: dict[str, tuple[int, int]] = {}
    for name in names:
        a_rI, b_Or = map(shapes.get, keys_of(name))  # noqa: N806 - shape suffixes
        if a_rI is None or b_Or is None:
            raise refused(f"{WEIGHTS_FILE} holds only one half of {name}")
        if len(a_rI) != 2 or len(b_Or) != 2 or a_rI[0] != rank or b_Or[1] != rank:
            raise refused(f"{name} has shapes {tuple(a_rI)} and {tuple(b_Or)}, which do not fit r = {rank}")
        modules[name] = (a_rI[1], b_Or[0])
    return modules


def keys_of(module: str) -> tuple[str, str]:
    """What a module's A and B are called."""
    return f"{PREFIX}{module}{A}", f"{PREFIX}{module}{B}"


def refused(why: str) -> EngineError:
    """The error that says why an adapter cannot be used."""
    return EngineError(f"the adapter cannot be used: {why}", "ModelLoadError")
