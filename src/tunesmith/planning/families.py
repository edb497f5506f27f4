"""The families whose weights follow from their configuration, by transformers' model_type.

Defaults are what transformers' configuration class takes where config.json is silent; they are listed where that
changes a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tunesmith.planning import elders
from tunesmith.planning.config import Config
from tunesmith.planning.decoders import FOUR_NORMS, Style, decoder
from tunesmith.planning.layout import Layout
from tunesmith.planning.mixtures import deepseek, gpt_oss, mixtral, nemotron_h, qwen3_next, qwen_moe

ENCODERS = frozenset(
    {"bert", "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "distilbert", "mpnet", "modernbert", "electra"}
    | {"deberta", "deberta-v2", "albert", "nomic_bert", "new", "gte", "eurobert", "jina_embeddings_v3", "ernie"}
)
"""Families that read in both directions: made to represent texts, not to write them."""


@dataclass(frozen=True, slots=True)
class Family:
    """How a family's weights follow from its configuration."""

    layout: Callable[[Config], Layout]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    gated: bool = True


def _plain(style: Style, **defaults: Any) -> Family:
    return Family(partial(decoder, style=style), defaults, gated=style.gated)


_LLAMA = Style(mlp_bias="mlp_bias")
_NO_BIAS = Style(qkv_bias=False, out_bias=False)
_QWEN2 = Style(qkv_bias="qkv_bias", out_bias=False)
_QWEN3 = Style(qk_norm="head")
_GEMMA = {"tie_word_embeddings": True, "head_dim": 256, "max_position_embeddings": 8192}
# The published Gemma 3 that also see leave these out of their text part.
_GEMMA3 = {
    **_GEMMA,
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}
_OLMO2 = Style(qk_norm="all", norms=("post_attention_layernorm", "post_feedforward_layernorm"))
_COHERE = Style(norms=("input_layernorm",))
_NEMOTRON = Style(mlp_bias="mlp_bias", norm="layer", gated=False)
_STARCODER = Style("use_bias", "use_bias", "use_bias", norm="layer", gated=False, up="c_fc", down="c_proj")
_PHI = Style(
    True,
    True,
    True,
    head_bias=True,
    norms=("input_layernorm",),
    norm="layer",
    gated=False,
    out="dense",
    up="fc1",
    down="fc2",
    final_norm="model.final_layernorm",
)
_TIED = {"tie_word_embeddings": True}


def _stablelm(config: Config) -> Layout:
    norms = (
        ("input_layernorm",)
        if config.flag("use_parallel_residual")
        else ("input_layernorm", "post_attention_layernorm")
    )
    return decoder(config, Style("use_qkv_bias", out_bias=False, norms=norms, norm="layer"))


def _cohere(config: Config) -> Layout:
    normed = config.flag("use_qk_norm")
    return decoder(config, Style(norms=("input_layernorm",), qk_norm="all" if normed else "no"))


FAMILIES: dict[str, Family] = {
    "llama": _plain(_LLAMA, max_position_embeddings=2048),
    "nemotron": _plain(_NEMOTRON, max_position_embeddings=4096),
    "nemotron_h": Family(nemotron_h, {"head_dim": 128}, gated=False),
    "mistral": _plain(_NO_BIAS, sliding_window=4096),
    "ministral": _plain(_NO_BIAS, sliding_window=4096),
    "ministral3": _plain(_NO_BIAS, head_dim=128),
    "mixtral": Family(
        partial(decoder, style=_NO_BIAS, feed=mixtral), {"num_local_experts": 8, "num_experts_per_tok": 2}
    ),
    "phi": _plain(_PHI),
    "phi3": _plain(Style(qkv_bias=False, out_bias=False, fused=True)),
    "phimoe": Family(
        partial(decoder, style=Style(norm="layer", head_bias="lm_head_bias"), feed=mixtral),
        {"num_local_experts": 16, "num_experts_per_tok": 2},
    ),
    "qwen2": _plain(_QWEN2, qkv_bias=True, use_sliding_window=False),
    "qwen2_moe": Family(
        partial(decoder, style=_QWEN2, feed=qwen_moe),
        {"qkv_bias": True, "use_sliding_window": False, "num_experts": 60, "shared_expert_intermediate_size": 5632},
    ),
    "qwen3": _plain(_QWEN3, head_dim=128, use_sliding_window=False),
    "qwen3_moe": Family(
        partial(decoder, style=_QWEN3, feed=qwen_moe),
        {"num_experts": 128, "moe_intermediate_size": 768, "use_sliding_window": False},
    ),
    "qwen3_next": Family(
        qwen3_next,
        {
            "head_dim": 256,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 32,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "linear_conv_kernel_dim": 4,
        },
    ),
    "gemma": _plain(Style(), **_GEMMA),
    "gemma2": _plain(Style(norms=FOUR_NORMS), **_GEMMA, sliding_window=4096),
    "gemma3_text": _plain(Style(norms=FOUR_NORMS, qk_norm="head"), **_GEMMA3),
    "gpt_oss": Family(
        partial(decoder, style=Style(sinks=True), feed=gpt_oss),
        {"attention_bias": True, "head_dim": 64, "sliding_window": 128},
    ),
    "gpt2": Family(elders.gpt2, _TIED, gated=False),
    "opt": Family(elders.opt, _TIED, gated=False),
    "gpt_neox": Family(elders.gpt_neox, gated=False),
    "falcon": Family(elders.falcon, {**_TIED, "max_position_embeddings": 2048}, gated=False),
    "stablelm": Family(_stablelm),
    "starcoder2": _plain(_STARCODER, use_bias=True, tie_word_embeddings=True),
    "olmo": _plain(Style(norm="none")),
    "olmo2": _plain(_OLMO2),
    "olmo3": _plain(_OLMO2, sliding_window=4096),
    "olmoe": Family(partial(decoder, style=Style(qk_norm="all"), feed=mixtral)),
    "granite": _plain(_LLAMA),
    "granitemoe": Family(partial(decoder, style=Style(), feed=mixtral)),
    "cohere": Family(_cohere, _TIED),
    "cohere2": _plain(_COHERE, tie_word_embeddings=True, head_dim=128, sliding_window=4096),
    "smollm3": _plain(_LLAMA, tie_word_embeddings=True),
    "seed_oss": _plain(
        Style(qkv_bias="attention_bias", out_bias="attention_out_bias", mlp_bias="mlp_bias"),
        attention_bias=True,
        head_dim=128,
    ),
    "deepseek_v2": Family(partial(deepseek, style=Style(mlp_bias="mlp_bias"))),
    "deepseek_v3": Family(partial(deepseek, style=Style())),
    "bert": Family(elders.bert, {**_TIED, "type_vocab_size": 2}, gated=False),
    "roberta": Family(elders.bert, {**_TIED, "type_vocab_size": 2}, gated=False),
    "xlm-roberta": Family(elders.bert, {**_TIED, "type_vocab_size": 2}, gated=False),
    "camembert": Family(elders.bert, {**_TIED, "type_vocab_size": 2}, gated=False),
    "modernbert": Family(elders.modernbert, _TIED),
}

GENERIC = _plain(_LLAMA)
"""What an unknown decoder is taken for where nothing but its configuration is at hand."""
