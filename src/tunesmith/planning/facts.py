"""What a checkpoint says about itself, read from its configuration and the headers of its safetensors files.

Pure: control reads the bytes, this room reads the meaning.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from tunesmith.errors import Invalid

HEADER_LIMIT = 100 << 20
"""Bytes a safetensors header may have; the format's own limit."""

PRECISIONS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "I8": "int8", "U8": "int4"}

# Decoders that the engine trains: transformers' model_type.
TRAINABLE_FAMILIES = frozenset({"llama"})

_HEAD = ("lm_head", "embed_out", "output")
_EMBEDDING = ("embed_tokens", "wte", "word_embeddings", "embeddings")


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear module: y = W x with W of shape [out_features, in_features]."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A checkpoint in numbers."""

    checkpoint_model_name: str
    family: str
    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_kv_heads: int
    ffn_hidden_size: int
    vocab_size: int
    context_size: int
    tied_embeddings: bool
    gated_mlp: bool
    parameters: int
    precision: str
    chat_template: str
    """Jinja source; "" when the checkpoint has none."""
    linears: tuple[Linear, ...]
    """All linear modules that can be adapted: every one but the output head."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]


def read_header(head: bytes, name: str) -> dict[str, Tensor]:
    """The tensors that a safetensors file starting with `head` holds; Invalid when it is not one or `head` is short.

    Format: 8 bytes little-endian length n, then n bytes of JSON {name: {dtype, shape, data_offsets}}.
    """
    if len(head) < 8:
        raise Invalid(f"{name}: not a safetensors file (only {len(head)} bytes)")
    (length,) = struct.unpack("<Q", head[:8])
    if length > HEADER_LIMIT or len(head) < 8 + length:
        raise Invalid(f"{name}: not a safetensors file, or cut short (its header claims {length} bytes)")
    try:
        entries = json.loads(head[8 : 8 + length])
        return {
            key: Tensor(value["dtype"], tuple(value["shape"]))
            for key, value in entries.items()
            if key != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"{name}: its safetensors header cannot be read ({error})") from None


def facts(config: Mapping[str, Any], tensors: Mapping[str, Tensor], chat_template: str) -> ModelFacts:
    """The facts of a decoder; Invalid names the key of config.json that is missing or wrong."""
    text = config.get("text_config") or config
    heads = _whole(text, "num_attention_heads", "n_head")
    architectures = config.get("architectures") or [config.get("_name_or_path", "unknown")]
    kinds = [tensor.dtype for name, tensor in tensors.items() if len(tensor.shape) > 1] or ["F32"]
    return ModelFacts(
        checkpoint_model_name=str(architectures[0]),
        family=str(config.get("model_type", "unknown")).lower(),
        num_layers=_whole(text, "num_hidden_layers", "n_layer"),
        hidden_size=_whole(text, "hidden_size", "n_embd"),
        num_attention_heads=heads,
        num_kv_heads=_whole(text, "num_key_value_heads", default=heads),
        ffn_hidden_size=_whole(text, "intermediate_size", "n_inner"),
        vocab_size=_whole(text, "vocab_size"),
        context_size=_whole(text, "max_position_embeddings", "n_positions"),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        gated_mlp=any("gate_proj" in name or "gate_up_proj" in name for name in tensors),
        parameters=sum(prod(tensor.shape) for tensor in tensors.values()),
        precision=PRECISIONS.get(max(set(kinds), key=kinds.count), "float32"),
        chat_template=chat_template,
        linears=tuple(_linears(tensors)),
    )


def _linears(tensors: Mapping[str, Tensor]) -> Iterable[Linear]:
    """Two-dimensional weights that are neither an embedding nor the output head, in the order of the layers."""
    for name in sorted(tensors, key=_natural):
        shape = tensors[name].shape
        module, _, kind = name.rpartition(".")
        last = module.rpartition(".")[2]
        if kind == "weight" and len(shape) == 2 and last not in _HEAD and last not in _EMBEDDING:
            yield Linear(module, in_features=shape[1], out_features=shape[0])


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key in which layer 10 comes after layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _whole(config: Mapping[str, Any], *keys: str, default: int | None = None) -> int:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        if value is not None:
            raise Invalid(f"config.json: '{key}' must be a whole number above 0, not {value!r}")
    if default is not None:
        return default
    raise Invalid(f"config.json: '{keys[0]}' is missing")
