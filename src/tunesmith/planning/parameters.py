"""Parameters and linear modules: exactly from the headers where weights are unquantised, else from the configuration.

Counted is what a model would train: buffers are not, and a head that is the embedding counts once though it be stored
twice. Both ways agree on models that transformers builds on the meta device (tests/planning/test_parameters.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from tunesmith.errors import Invalid
from tunesmith.planning.config import Config
from tunesmith.planning.families import FAMILIES, GENERIC
from tunesmith.planning.headers import Tensor
from tunesmith.planning.layout import LINEAR_LIMIT, Layout, Linear, Module

COUNT_LIMIT = 2**62
"""Parameters a model may have: what a database column holds."""

_NUMBERS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "C64")
"""Types of weights; whole numbers and truth values in an unquantised checkpoint are buffers."""

_BUFFERS = re.compile(
    r"(^|\.)(inv_freq|masked_bias|position_ids|token_type_ids|e_score_correction_bias|running_mean|running_var"
    r"|num_batches_tracked|(cos|sin)_cached|rotary_pos_emb|original_inv_freq)$"
)
_HEADS = re.compile(r"(^|\.)(lm_head|embed_out|output|score|classifier|decoder|qa_outputs|classification_head)$")
_ROUTERS = re.compile(r"(^|\.)(gate|router|router\.layer|wg|shared_expert_gate)$")
_MAMBA_OUT = re.compile(r"(^|\.)mixer\.out_proj$")
_EXPERTS = re.compile(r"\.experts\.")
_TABLES = re.compile(r"(embed|wte$|wpe$|norm$|relative_attention_bias$|^shared$)", re.IGNORECASE)
_NORMS = re.compile(r"norm(_f)?$")
_TRANSPOSED = re.compile(r"(^|\.)(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)$")

_LOADED_AS = {"nemotron_h": ("backbone.", "model.")}
"""Families whose modules are called otherwise in memory than in the files: both beginnings."""


def layout_of(config: Config) -> Layout | None:
    """The weights that the configuration implies; None for a family without a formula."""
    family = FAMILIES.get(config.family)
    if family is None or config.has_towers:
        return None
    return family.layout(config.with_defaults(family.defaults))


@dataclass(frozen=True, slots=True)
class Measured:
    """A model in numbers and names."""

    parameters: int
    linears: tuple[Linear, ...]
    """The linear modules that can take an adapter."""
    modules: tuple[Module, ...]
    """All that can be trained whole."""


def measure(config: Config, tensors: Mapping[str, Tensor], quantization: str) -> Measured:
    """What the files say, or the formula, with names as they are in memory; Invalid where neither tells."""
    found, (stored, loaded) = _stored(config, tensors, quantization), _LOADED_AS.get(config.family, ("", ""))
    if not stored:
        return found
    return replace(
        found,
        linears=tuple(replace(each, name=_renamed(each.name, stored, loaded)) for each in found.linears),
        modules=tuple(replace(each, name=_renamed(each.name, stored, loaded)) for each in found.modules),
    )


def _renamed(name: str, stored: str, loaded: str) -> str:
    return loaded + name.removeprefix(stored) if name.startswith(stored) else name


def _stored(config: Config, tensors: Mapping[str, Tensor], quantization: str) -> Measured:
    layout = layout_of(config) if quantization or not tensors else None
    if layout is None and tensors:
        plain = unpacked(tensors, config.quantization) if quantization else tensors
        copies = _copies(plain, config)
        shapes = {name: tensor.shape for name, tensor in plain.items() if name not in copies}
        return Measured(
            _bounded(count(plain, config)), tuple(linears(plain, config.family)), tuple(modules(shapes.items()))
        )
    if layout is None:
        if config.has_towers:
            raise Invalid(
                f"config.json: the parameters of '{config.outer_family}' cannot be counted from its configuration "
                "alone; upload safetensors weights"
            )
        layout = GENERIC.layout(config)
    total = _bounded(layout.parameters)
    if layout.number_of_linears > LINEAR_LIMIT:
        raise Invalid(f"config.json: 'num_hidden_layers' makes {layout.number_of_linears:,} linear layers")
    shapes = {}
    for name, part in layout.parts():
        shapes[f"{name}.weight"] = part.shape
        if part.bias:
            shapes[f"{name}.bias"] = (part.bias,)
    return Measured(total, tuple(layout.linears()), tuple(modules(shapes.items())))


def count(tensors: Mapping[str, Tensor], config: Config) -> int:
    """Parameters in unquantised tensors, buffers left out."""
    counted = {name: tensor for name, tensor in tensors.items() if not _is_buffer(name, tensor)}
    for name in _copies(counted, config):
        del counted[name]
    return sum(prod(tensor.shape) for tensor in counted.values())


def linears(tensors: Mapping[str, Tensor], family: str) -> list[Linear]:
    """Modules with a matrix that is no embedding, norm, output head, router or routed expert, layer by layer.

    Nor the last of a Mamba mixer: PEFT takes no adapter on it, since fused kernels read its weight directly.
    """
    transposed = _TRANSPOSED if family in ("gpt2", "openai-gpt") else None
    found = []
    for name in sorted(tensors, key=_natural):
        module, _, kind = name.rpartition(".")
        shape = tensors[name].shape
        if kind != "weight" or len(shape) != 2 or not module:
            continue
        last = module.rpartition(".")[2]
        apart = (_HEADS, _ROUTERS, _MAMBA_OUT)
        if any(pattern.search(module) for pattern in apart) or _EXPERTS.search(f".{module}") or _TABLES.search(last):
            continue
        out, into = reversed(shape) if transposed and transposed.search(module) else shape
        found.append(Linear(module, in_features=into, out_features=out))
    return found


def modules(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> list[Module]:
    """Of weights and their shapes, the linear modules, embeddings, norms and the head, layer by layer.

    Neither routers nor routed experts: what these are called in the files is not what they are called in memory.
    """
    sizes: dict[str, dict[str, int]] = {}
    for name, shape in sorted(shapes, key=lambda each: _natural(each[0])):
        module, _, kind = name.rpartition(".")
        if _ROUTERS.search(module) or _EXPERTS.search(f".{name}"):
            continue
        if kind == "bias" or (kind == "weight" and (len(shape) == 2 or (len(shape) == 1 and _NORMS.search(module)))):
            sizes.setdefault(module, {})[kind] = prod(shape)
    return [
        Module(name, parameters=sum(each.values()), bias=each.get("bias", 0))
        for name, each in sizes.items()
        if name and each.get("weight")
    ]


def unpacked(tensors: Mapping[str, Tensor], quantization: Mapping[str, Any]) -> dict[str, Tensor]:
    """Quantised tensors in the shapes that they stand for; scales, zero points and the like left out.

    GPTQ packs 32 / bits inputs in a word, AWQ as many outputs; MXFP4 and NF4 two numbers in a byte. Of NF4 only the
    number of elements is known, since its shape is stored beside it.
    """
    bits = quantization.get("bits", quantization.get("w_bit"))
    bits = bits if bits in (2, 3, 4, 8) else 4
    awq = quantization.get("quant_method") == "awq"
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, dot, kind = name.rpartition(".")
        shape = tensor.shape
        if kind == "qweight" and len(shape) == 2:
            into, out = (shape[0], shape[1] * 32 // bits) if awq else (shape[0] * 32 // bits, shape[1])
            plain[f"{stem}.weight"] = Tensor("F16", (out, into))
        elif kind == "weight_packed" and len(shape) == 2:
            plain[f"{stem}.weight"] = Tensor("F16", (shape[0], shape[1] * (2 if tensor.dtype == "U8" else 32 // bits)))
        elif kind.endswith("_blocks") and tensor.dtype == "U8" and len(shape) == 4:
            plain[name.removesuffix("_blocks")] = Tensor("BF16", (shape[0], shape[1], shape[2] * shape[3] * 2))
        elif kind == "weight" and tensor.dtype == "U8":
            fours = shape == (prod(shape), 1)
            plain[name] = Tensor("F16", (prod(shape) * 2,) if fours else (*shape[:-1], shape[-1] * 2) if shape else ())
        elif kind == "weight" and tensor.dtype == "I8":
            plain[name] = Tensor("F16", shape)
        elif not _SCALES.search(f"{dot}{kind}" if not stem else f".{name}"):
            plain[name] = tensor
    return plain


_SCALES = re.compile(
    r"(_scale|_scales|_scale_inv|_scale_2|\.scales|\.qzeros|\.g_idx|\.SCB|\.weight_format|\.weight_shape"
    r"|_zero_point|\.absmax|\.quant_map|\.nested_absmax|\.nested_quant_map|\.quant_state\.[^.]+|\.k_scale|\.v_scale)$"
)


def _is_buffer(name: str, tensor: Tensor) -> bool:
    if tensor.dtype not in _NUMBERS or _BUFFERS.search(name):
        return True
    # GPT-2's and GPT-NeoX's causal mask [1, 1, T, T] is called `attn.bias`; a bias that is learned has one dimension.
    return name.endswith((".attn.bias", ".attention.bias", ".attn.masked_bias")) and len(tensor.shape) > 1


def _copies(tensors: Mapping[str, Tensor], config: Config) -> list[str]:
    """Output heads that are the embedding, and the second of a masked language model's two equal biases."""
    again = []
    tables = {tensor.shape for name, tensor in tensors.items() if _TABLES.search(name.rpartition(".")[0])}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and config.tied and _is_output(module) and tensor.shape in tables:
            again.append(name)
        if kind == "bias" and module in ("lm_head.decoder", "cls.predictions.decoder"):
            twin = f"{module.rpartition('.')[0]}.bias"
            again += [name] if twin in tensors else []
    return again


def _is_output(module: str) -> bool:
    return module.rpartition(".")[2] in ("lm_head", "embed_out", "output", "decoder")


def _bounded(total: int) -> int:
    if total > COUNT_LIMIT:
        raise Invalid("config.json: its sizes multiply to more parameters than any model has; 'hidden_size' is wrong")
    return total


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key in which layer 10 comes after layer 9."""
    return [
        (int(part), "") if part.isdecimal() and part.isascii() and len(part) < 10 else (-1, part)
        for part in name.split(".")
    ]
