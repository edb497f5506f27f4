"""Decoders in the manner of Llama: what their families do alike is here once, what they do otherwise is a `Style`.

Names and shapes are those of transformers' modelling files (models/<family>/modeling_<family>.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tunesmith.planning.config import Config
from tunesmith.planning.layout import Group, Layout, Part, linear, weight

Switch = bool | str
"""Always, never, or as the configuration's key of this name says."""

Feed = Callable[[Config, "Style", int], tuple[tuple[Part, ...], bool]]
"""Parts of the feed-forward network of a layer, and whether it is made of experts."""

TWO_NORMS = ("input_layernorm", "post_attention_layernorm")
FOUR_NORMS = (*TWO_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True, slots=True)
class Style:
    """What a family does its own way."""

    qkv_bias: Switch = "attention_bias"
    out_bias: Switch = "attention_bias"
    mlp_bias: Switch = False
    head_bias: Switch = False
    norms: tuple[str, ...] = TWO_NORMS
    norm: Literal["rms", "layer", "none"] = "rms"
    """A weight; a weight and a bias; nothing that is learned."""
    qk_norm: Literal["no", "head", "all"] = "no"
    """Queries and keys are normed: one weight for all heads, one for each."""
    qk_norm_key: str = ""
    """The key that switches it on; "" = always."""
    fused: bool = False
    """One matrix for q, k and v, one for gate and up."""
    gated: bool = True
    sinks: bool = False
    """A learned logit for each head that attends to nothing (gpt-oss)."""
    out: str = "o_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    final_norm: str = "model.norm"


def decoder(config: Config, style: Style, feed: Feed | None = None) -> Layout:
    """The weights of a decoder of this style; `feed` where the feed-forward networks are not all dense."""
    shared = attention(config, style) + tuple(norm(name, config.hidden, style) for name in style.norms)

    def layer(number: int) -> tuple[tuple[Part, ...], bool]:
        parts, sparse = feed(config, style, number) if feed else (dense(config, style), False)
        return shared + parts, sparse

    layers = range(config.layers)
    groups = grouped(layers, layer) if feed else (Group("model.layers.{}.", layers, layer(0)[0]),)
    return Layout(
        groups, (*ends(config, head_bias=on(config, style.head_bias)), norm(style.final_norm, config.hidden, style))
    )


def grouped(
    layers: Sequence[int], parts_of: Callable[[int], tuple[tuple[Part, ...], bool]], prefix: str = "model.layers.{}."
) -> tuple[Group, ...]:
    """Layers with equal parts together."""
    found: dict[tuple[tuple[Part, ...], bool], list[int]] = {}
    for number in layers:
        found.setdefault(parts_of(number), []).append(number)
    return tuple(Group(prefix, numbers, parts, sparse) for (parts, sparse), numbers in found.items())


def attention(config: Config, style: Style) -> tuple[Part, ...]:
    """Queries, keys, values (grouped: Ainslie et al., 2023) and output, with the norms of queries and keys."""
    hidden, size = config.hidden, config.head_size
    queries, keys = config.heads * size, config.kv_heads * size
    bias, out_bias = on(config, style.qkv_bias), on(config, style.out_bias)
    projections = (
        (linear("self_attn.qkv_proj", hidden, queries + 2 * keys, bias),)
        if style.fused
        else (
            linear("self_attn.q_proj", hidden, queries, bias),
            linear("self_attn.k_proj", hidden, keys, bias),
            linear("self_attn.v_proj", hidden, keys, bias),
        )
    )
    parts = (*projections, linear(f"self_attn.{style.out}", queries, hidden, out_bias))
    if style.sinks:
        parts += (weight("self_attn.sinks", config.heads),)
    return parts + _qk_norms(config, style)


def _qk_norms(config: Config, style: Style) -> tuple[Part, ...]:
    if style.qk_norm == "no" or (style.qk_norm_key and not config.flag(style.qk_norm_key)):
        return ()
    size = config.head_size
    queries, keys = (config.heads * size, config.kv_heads * size) if style.qk_norm == "all" else (size, size)
    return (weight("self_attn.q_norm", queries), weight("self_attn.k_norm", keys))


def dense(config: Config, style: Style, width: int = 0, name: str = "mlp") -> tuple[Part, ...]:
    """A feed-forward network of `width` (the configuration's own without), gated (Shazeer, 2020) or not."""
    hidden, ffn, bias = config.hidden, width or config.ffn, on(config, style.mlp_bias)
    down = linear(f"{name}.{style.down}", ffn, hidden, bias)
    if style.fused:
        return (linear(f"{name}.gate_up_proj", hidden, 2 * ffn, bias), down)
    up = linear(f"{name}.{style.up}", hidden, ffn, bias)
    if not style.gated:
        return (up, down)
    return (linear(f"{name}.gate_proj", hidden, ffn, bias), up, down)


def norm(name: str, size: int, style: Style) -> Part:
    """A norm over `size` channels."""
    if style.norm == "none":
        return weight(name, 0)
    return weight(name, size, bias=size if style.norm == "layer" else 0)


def ends(
    config: Config, embedding: str = "model.embed_tokens", width: int = 0, head_bias: bool = False
) -> tuple[Part, ...]:
    """The embedding, and the head of the checkpoint's class: none in a bare model, a classifier's, or the output."""
    width = width or config.hidden
    parts: tuple[Part, ...] = (weight(embedding, config.vocab, width),)
    if config.architecture.endswith("Model") and not config.architecture.endswith("LMHeadModel"):
        return parts
    if config.architecture.endswith(("ForSequenceClassification", "ForTokenClassification")):
        token = config.architecture.endswith("ForTokenClassification")
        return (*parts, weight("score", config.labels, width, bias=config.labels if token else 0))
    bias = config.vocab if head_bias else 0
    if config.tied:
        return (*parts, weight("lm_head.bias", bias)) if bias else parts
    return (*parts, weight("lm_head", config.vocab, width, bias=bias))


def on(config: Config, switch: Switch) -> bool:
    """Whether a switch is on in this configuration."""
    return config.flag(switch) if isinstance(switch, str) else switch
