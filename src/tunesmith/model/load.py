"""Reads a checkpoint into a torch module: the one model class it names, unmodified, frozen, on one device."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from tunesmith.errors import EngineError
from tunesmith.handoff.base import Compute
from tunesmith.handoff.plan import Attention

DTYPES: dict[Compute, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

LOAD_ERROR = "ModelLoadError"
BROKEN = (OSError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError)
"""What a checkpoint that cannot be read makes transformers raise."""


def resolve_compute(wanted: Literal["auto"] | Compute, device: torch.device) -> Compute:
    """What `auto` means on this device: bf16 where there are bf16 dot products, else fp32.

    On a CPU without them bf16 products are emulated and slower than fp32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if _cpu_has_bf16_products() else "fp32"


def pick_device() -> torch.device:
    """The one device of this process: the first GPU that the launcher lets us see, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def load_model(directory: Path, compute: Compute, attention: Attention, device: torch.device) -> nn.Module:
    """The causal language model in `directory`, all weights frozen and in the compute type, in eval mode.

    Returns transformers' own class (`config.architectures[0]`); only the module that defines it is imported. Experts
    in MXFP4 are dequantised; a .bin file is read as weights only, never as a program. EngineError (ModelLoadError) if
    the class is unknown, also sees or hears, is quantised otherwise, or if the weights do not fit it.
    """
    config = _config(directory)
    name = str(config["architectures"][0])
    import transformers  # here, because its lazy modules still take a second
    from huggingface_hub.errors import StrictDataclassError

    kind = getattr(transformers, name, None)
    if kind is None:
        raise EngineError(
            f"config.json architectures[0] ({name}) is not a model of transformers {transformers.__version__}",
            LOAD_ERROR,
        )
    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = kind.from_pretrained(
            directory,
            dtype=DTYPES[compute],
            attn_implementation=_loadable(kind, attention),
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told of below, each by its name
            **_dequantised(config),
        )
    except KeyError as error:
        raise EngineError(
            f"the model cannot be loaded: config.json names {error}, which is not known", LOAD_ERROR
        ) from error
    except (*BROKEN, StrictDataclassError) as error:
        raise EngineError(f"the model cannot be loaded: {error}", LOAD_ERROR) from error
    _refuse_what_does_not_fit(report)
    if _dequantised(config):
        model._weight_conversions = None  # noqa: SLF001 - or what is saved would get the names of quantised weights
    model.requires_grad_(False)
    model.eval()
    return model.to(device)


def _refuse_what_does_not_fit(report: Mapping[str, Any]) -> None:
    """EngineError for weights that are not there, or have another shape than the configuration makes them."""
    if report["missing_keys"]:
        first = min(report["missing_keys"])
        raise EngineError(f"the checkpoint lacks {len(report['missing_keys'])} weights, such as {first}", LOAD_ERROR)
    if report["mismatched_keys"]:
        name, found, expected = min(report["mismatched_keys"])
        raise EngineError(
            f"{name} is {tuple(found)} in the checkpoint, and config.json makes it {tuple(expected)}", LOAD_ERROR
        )


def _config(directory: Path) -> dict[str, Any]:
    """config.json, which names the one class and describes nothing but a language model."""
    path = directory / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EngineError("the model has no config.json", LOAD_ERROR) from None
    except ValueError as error:
        raise EngineError(f"config.json is not JSON: {error}", LOAD_ERROR) from None
    if not config.get("architectures"):
        raise EngineError("config.json names no class in `architectures`", LOAD_ERROR)
    if "text_config" in config:
        raise EngineError(
            f"{config['architectures'][0]} also sees or hears (config.json has a text_config); a checkpoint of its "
            "language model alone can be used",
            LOAD_ERROR,
        )
    return config


def _dequantised(config: Mapping[str, Any]) -> dict[str, Any]:
    """What from_pretrained is told so that all weights lie in the compute type."""
    method = (config.get("quantization_config") or {}).get("quant_method")
    if not method:
        return {}
    if method != "mxfp4":
        raise EngineError(
            f"config.json quantization_config.quant_method ({method}) is not supported; use the unquantised checkpoint",
            LOAD_ERROR,
        )
    from transformers import Mxfp4Config

    return {"quantization_config": Mxfp4Config(dequantize=True)}


def _loadable(kind: Any, attention: Attention) -> str:
    """Families with capped scores or sinks cannot be made with torch's kernel; ours takes its place afterwards."""
    return attention if kind._supports_sdpa else "eager"  # noqa: SLF001 - no public way to ask


def _cpu_has_bf16_products() -> bool:
    """AVX-512 BF16 or AMX on x86, the BF16 extension on ARM."""
    known = torch.cpu.get_capabilities()
    return any(known.get(flag) for flag in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))
