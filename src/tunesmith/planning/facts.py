"""What a checkpoint says about itself, read from its configuration and the headers of its safetensors files.

Pure: control reads the bytes, this room reads the meaning::

    facts(config, tensors, chat_template, names=("meta/llama-3.2-1b",), files=("config.json", "1_Pooling/config.json"))

`tensors` is the union of the headers of `headers.weight_files(...)`, None where there are none (a checkpoint in .bin).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from tunesmith.api.models import MambaConfig, MoeConfig
from tunesmith.handoff.capabilities import TRAINED_FAMILIES
from tunesmith.planning import hints
from tunesmith.planning.config import (
    ACTIVE_EXPERTS,
    CONTEXT,
    EXPERT_FFN,
    EXPERT_LIMIT,
    EXPERTS,
    FFN,
    HEADS,
    KV_HEADS,
    LAYERS,
    SHARED_EXPERTS,
    Config,
)
from tunesmith.planning.elders import falcon_kv_heads
from tunesmith.planning.families import ENCODERS, FAMILIES
from tunesmith.planning.headers import Tensor
from tunesmith.planning.layout import Linear, Module
from tunesmith.planning.mixtures import hybrid_layers
from tunesmith.planning.parameters import layout_of, measure

__all__ = ["TRAINABLE_FAMILIES", "Linear", "ModelFacts", "Module", "facts"]

PRECISIONS = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "I8": "int8",
    "U8": "int4",
    "I32": "int4",
    "F8_E4M3": "float8",
    "F8_E5M2": "float8",
}

TRAINABLE_FAMILIES = frozenset(TRAINED_FAMILIES)
"""Decoders that the engine trains, by transformers' model_type: the rows of the table in handoff/capabilities.py."""

_STATE_SPACE = ("ssm_state_size", "mamba_d_state", "state_size")
_SENTENCE_TRANSFORMERS = ("modules.json", "config_sentence_transformers.json")
_GATED_ACTIVATIONS = ("silu", "swish", "swiglu", "geglu")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A checkpoint in numbers."""

    checkpoint_model_name: str
    family: str
    """transformers' model_type, of the whole checkpoint where it also sees or hears."""
    num_layers: int
    hidden_size: int
    num_attention_heads: int
    """0 in a model without attention."""
    num_kv_heads: int
    ffn_hidden_size: int
    vocab_size: int
    context_size: int | None
    """null where the configuration sets no limit."""
    tied_embeddings: bool
    gated_mlp: bool
    parameters: int
    precision: str
    chat_template: str
    """Jinja source; "" when the checkpoint has none."""
    linears: tuple[Linear, ...]
    """All linear modules that can be adapted: every one but output head, routers and routed experts."""
    modules: tuple[Module, ...] = ()
    """All modules that can be trained whole: linear ones, embeddings, norms and the output head where it is not the
    embedding; neither routers nor routed experts."""
    is_embedding: bool = False
    """Made to turn texts into vectors."""
    is_reranker: bool = False
    """A sequence classifier or cross-encoder: scores texts, generates nothing."""
    quantization: str = ""
    """`mxfp4`, `bitsandbytes`, `gptq`, `awq`, `fp8`, ...; "" when the weights are stored as they are."""
    moe: MoeConfig | None = None
    mamba: MambaConfig | None = None
    sliding_window: int | None = None
    """Tokens that an attention with a window looks back."""
    minimum_gpus_all_weights: int | None = None
    """GPUs of 80 GB that training all weights takes at least."""
    minimum_gpus_lora: int | None = None
    start_ids: tuple[int, ...] = ()
    """Tokens that a text begins with, as config.json says; () where it does not."""
    end_ids: tuple[int, ...] = ()
    """Tokens that end an answer."""


def facts(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | None,
    chat_template: str = "",
    *,
    names: Iterable[str] = (),
    files: Iterable[str] = (),
) -> ModelFacts:
    """The facts of a checkpoint; Invalid names the key of config.json that is missing or wrong.

    `names` are what the model is called (entity, repository): "embed" in one of them makes it an embedding model;
    `files` the paths of the fileset, of which those of sentence-transformers say the same.
    """
    tensors = tensors or {}
    asked = Config(config)
    family = FAMILIES.get(asked.family)
    asked = asked.with_defaults(family.defaults if family else {})
    quantization = _quantization(asked)
    precision = _precision(asked, tensors, quantization)
    heads = asked.whole(*HEADS, default=None if family else 0, least=0)
    layers = asked.whole(*LAYERS, default=len(hybrid_layers(asked)) or None, most=10_000)
    measured = measure(asked, tensors, quantization)
    parameters, linears = measured.parameters, measured.linears
    is_reranker = _is_reranker(asked)
    each = hints.activation_bytes(layers, asked.hidden, asked.vocab)
    return ModelFacts(
        checkpoint_model_name=asked.architecture,
        family=asked.family if asked.outer_family == "unknown" else asked.outer_family,
        num_layers=layers,
        hidden_size=asked.hidden,
        num_attention_heads=heads,
        num_kv_heads=falcon_kv_heads(asked)
        if asked.family == "falcon"
        else asked.whole(*KV_HEADS, default=heads, least=0),
        ffn_hidden_size=_ffn(asked),
        vocab_size=asked.vocab,
        context_size=asked.maybe(*CONTEXT),
        tied_embeddings=asked.tied,
        gated_mlp=family.gated if family else _is_gated(asked, tensors),
        parameters=parameters,
        precision=precision,
        chat_template=chat_template,
        linears=linears,
        modules=measured.modules,
        is_embedding=not is_reranker and _is_embedding(asked, names, files),
        is_reranker=is_reranker,
        quantization=quantization,
        moe=_moe(asked, tensors, layers),
        mamba=_mamba(asked, layers, heads),
        sliding_window=_sliding_window(asked),
        minimum_gpus_all_weights=hints.minimum_gpus(hints.all_weights_bytes(parameters), each),
        minimum_gpus_lora=hints.minimum_gpus(hints.lora_bytes(parameters, linears, precision), each),
        start_ids=asked.ids("bos_token_id"),
        end_ids=asked.ids("eos_token_id"),
    )


def _ffn(config: Config) -> int:
    if config.family in ("gpt2", "falcon"):
        return config.whole(*FFN, default=4 * config.hidden)
    return config.whole(*FFN, *EXPERT_FFN, default=None if config.family in FAMILIES else 0, least=0)


def _quantization(config: Config) -> str:
    asked = config.quantization
    if not asked:
        return ""
    method = Config(asked).text("quant_method")
    return method.lower() or ("bitsandbytes" if asked.get("load_in_4bit") or asked.get("load_in_8bit") else "unknown")


def _precision(config: Config, tensors: Mapping[str, Tensor], quantization: str) -> str:
    """Of the stored weights: as quantised, else the type of most elements, else as the configuration says."""
    if quantization in ("mxfp4", "nvfp4"):
        return "int4"
    if quantization == "bitsandbytes":
        return "int8" if config.quantization.get("load_in_8bit") is True else "int4"
    if quantization in ("gptq", "awq"):
        return f"int{Config(config.quantization).whole('bits', 'w_bit', default=4, most=8)}"
    if "fp8" in quantization:
        return "float8"
    elements: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor.dtype in PRECISIONS and len(tensor.shape) > 1:
            elements[PRECISIONS[tensor.dtype]] += prod(tensor.shape)
    if elements:
        return elements.most_common(1)[0][0]
    named = (config.text("dtype") or config.text("torch_dtype")).removeprefix("torch.")
    return named if named in PRECISIONS.values() else "float32"


def _is_gated(config: Config, tensors: Mapping[str, Tensor]) -> bool:
    if tensors:
        return any("gate_proj" in name or "gate_up_proj" in name or ".w3." in name for name in tensors)
    return (config.text("hidden_act") or config.text("activation_function")) in _GATED_ACTIVATIONS


def _is_embedding(config: Config, names: Iterable[str], files: Iterable[str]) -> bool:
    return (
        any("embed" in name.lower() for name in (*names, config.architecture))
        or any(file in _SENTENCE_TRANSFORMERS or file.startswith("1_Pooling/") for file in files)
        or config.outer_family in ENCODERS
    )


def _is_reranker(config: Config) -> bool:
    return (
        config.architecture.endswith("ForSequenceClassification")
        or "CrossEncoder" in config.architecture
        or config.outer("sbert_ce_default_activation_function") is not None
    )


def _moe(config: Config, tensors: Mapping[str, Tensor], layers: int) -> MoeConfig | None:
    experts = config.whole(*EXPERTS, default=0, least=0, most=EXPERT_LIMIT)
    sparse = {name.partition(".experts.")[0] for name in tensors if ".experts." in name}
    if experts < 2 or (config.family == "nemotron_h" and "moe" not in hybrid_layers(config)):
        return None
    layout = None if sparse else layout_of(config)
    always = config.maybe(*SHARED_EXPERTS) or int(config.maybe("shared_expert_intermediate_size") is not None)
    return MoeConfig(
        num_experts=experts,
        num_experts_per_tok=config.whole(*ACTIVE_EXPERTS, default=1),
        num_expert_layers=len(sparse) or (layout.sparse_layers if layout else layers),
        expert_ffn_size=config.maybe(*EXPERT_FFN) or config.maybe(*FFN),
        num_shared_experts=always,
    )


def _mamba(config: Config, layers: int, heads: int) -> MambaConfig | None:
    state = config.maybe(*_STATE_SPACE)
    if state is None:
        return None
    kinds = hybrid_layers(config)
    return MambaConfig(
        is_hybrid=heads > 0,
        num_mamba_layers=kinds.count("mamba") if kinds else layers,
        num_attention_layers=kinds.count("attention"),
        num_mlp_layers=kinds.count("mlp"),
        state_size=state,
        conv_kernel=config.whole("conv_kernel", "mamba_d_conv", "d_conv", default=4),
    )


def _sliding_window(config: Config) -> int | None:
    if not config.flag("use_sliding_window", default=True):
        return None
    kinds = config.texts("layer_types")
    return None if kinds and "sliding_attention" not in kinds else config.maybe("sliding_window", "local_attention")
