"""The formula, the headers and transformers' own classes, built without memory, tell the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunesmith.planning.config import Config
from tunesmith.planning.facts import facts
from tunesmith.planning.families import ENCODERS
from tunesmith.planning.headers import Tensor
from tunesmith.planning.parameters import layout_of

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BIASED = {"attention_bias": True, "mlp_bias": True}
MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LATENT = {
    "kv_lora_rank": 8,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_hidden_layers": 5,
    "shared_expert_intermediate_size": 16,
}
HYBRID = {
    "hybrid_override_pattern": "M-M*E",
    "num_hidden_layers": 5,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "ssm_state_size": 8,
    "n_groups": 2,
    "head_dim": 8,
    "n_routed_experts": 4,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 20,
}
HEAD = {"head_dim": 16}
FALCON = {"num_kv_heads": 2, "ffn_hidden_size": 48}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, **BIASED, **HEAD}),
    ("nemotron", {}),
    ("nemotron", BIASED),
    ("nemotron_h", HYBRID),
    ("nemotron_h", {**HYBRID, "moe_latent_size": 12, "use_bias": True, "mlp_bias": True}),
    ("mistral", HEAD),
    ("ministral3", HEAD),
    ("mixtral", MOE),
    ("phi", {}),
    ("phi3", {}),
    ("phi3", {"tie_word_embeddings": True}),
    ("phimoe", MOE),
    ("phimoe", {**MOE, "attention_bias": True, "lm_head_bias": True}),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen2_moe", {**MOE, "shared_expert_intermediate_size": 40, "decoder_sparse_step": 2}),
    ("qwen3", HEAD),
    ("qwen3", {"tie_word_embeddings": True, "attention_bias": True, **HEAD}),
    ("qwen3_moe", {**MOE, **HEAD, "mlp_only_layers": [1]}),
    ("qwen3_next", {**MOE, **DELTA, **HEAD}),
    ("gemma", HEAD),
    ("gemma2", HEAD),
    ("gemma3_text", HEAD),
    ("gpt_oss", {**MOE, **HEAD}),
    ("gpt2", {}),
    ("gpt2", {"n_inner": 40}),
    ("opt", {"ffn_dim": 48}),
    ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    ("gpt_neox", {}),
    ("falcon", FALCON),
    ("falcon", {**FALCON, "new_decoder_architecture": True, "bias": True}),
    ("falcon", {**FALCON, "multi_query": False, "parallel_attn": False}),
    ("stablelm", {}),
    ("stablelm", {"use_qkv_bias": True, "use_parallel_residual": True}),
    ("starcoder2", {}),
    ("olmo", {}),
    ("olmo2", {}),
    ("olmo3", {}),
    ("olmoe", MOE),
    ("granite", BIASED),
    ("cohere", {}),
    ("cohere2", HEAD),
    ("smollm3", {}),
    ("seed_oss", HEAD),
    ("deepseek_v2", LATENT),
    ("deepseek_v2", {**LATENT, "q_lora_rank": None}),
    ("deepseek_v3", LATENT),
    ("bert", {}),
    ("roberta", {}),
    ("xlm-roberta", {}),
    ("modernbert", {}),
]


_BUILT: dict[str, tuple[dict[str, Any], nn.Module]] = {}


def built(family: str, changes: dict[str, Any], kind: str = "") -> tuple[dict[str, Any], nn.Module]:
    """config.json as transformers writes it, and the model without memory."""
    key = f"{family} {changes} {kind}"
    if key not in _BUILT:
        _BUILT[key] = build(family, changes, kind)
    return _BUILT[key]


def build(family: str, changes: dict[str, Any], kind: str) -> tuple[dict[str, Any], nn.Module]:
    """As `built`, anew."""
    config = transformers.CONFIG_MAPPING[family](**{**SMALL, **changes})
    table = (
        transformers.MODEL_MAPPING
        if family in ("bert", "roberta", "xlm-roberta", "modernbert")
        else transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    )
    cls = getattr(transformers, kind) if kind else table[type(config)]
    with torch.device("meta"):
        model = cls(config)
    return {**config.to_dict(), "architectures": [cls.__name__]}, model


def stored(model: nn.Module) -> dict[str, Tensor]:
    """The headers of a checkpoint that stores every weight and buffer, a tied head among them."""
    return {name: Tensor("F32", tuple(each.shape)) for name, each in model.state_dict().items()}


def adaptable(model: nn.Module) -> list[tuple[int, int]]:
    """Sizes of the linear modules but output head, routers, and the last of a Mamba mixer, which PEFT refuses."""
    head, apart = model.get_output_embeddings(), ("gate", "router", ".mixer.out_proj")
    found = []
    for name, module in model.named_modules():
        if isinstance(module, Conv1D):
            found.append((module.weight.shape[0], module.weight.shape[1]))
        if isinstance(module, nn.Linear) and module is not head and not name.endswith(apart):
            found.append((module.in_features, module.out_features))
    return sorted(found)


@pytest.mark.parametrize(("family", "changes"), CASES, ids=[f"{name}-{n}" for n, (name, _) in enumerate(CASES)])
def test_formula_headers_and_model_agree(family: str, changes: dict[str, Any]) -> None:
    config, model = built(family, changes)
    parameters = sum(each.numel() for each in model.parameters())
    layout = layout_of(Config(config))
    assert layout is not None
    headers = facts(config, stored(model))
    assert headers.parameters == parameters
    assert layout.parameters == parameters
    assert sorted((each.in_features, each.out_features) for each in headers.linears) == adaptable(model)
    assert sorted((each.in_features, each.out_features) for each in layout.linears()) == adaptable(model)
    assert facts(config, None).parameters == parameters


def whole(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Parameters and bias of each linear module, embedding and norm; no routers, and no head that is the embedding."""
    head, tied = model.get_output_embeddings(), model.config.tie_word_embeddings
    found = {}
    for name, module in model.named_modules():
        if name.endswith(("gate", "router")) or ".experts." in name or (module is head and tied):
            continue
        if isinstance(module, nn.Linear | nn.Embedding) or "norm" in type(module).__name__.lower():
            bias = getattr(module, "bias", None)
            found[name] = (sum(each.numel() for each in module.parameters()), 0 if bias is None else bias.numel())
    return {name: sizes for name, sizes in found.items() if sizes[0]}


DECODERS = [case for case in CASES if case[0] not in ("gpt2", "opt", "gpt_neox", "falcon", *ENCODERS)]


@pytest.mark.parametrize(("family", "changes"), DECODERS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(DECODERS)])
def test_what_can_be_trained_whole_is_what_the_model_has(family: str, changes: dict[str, Any]) -> None:
    config, model = built(family, changes)
    expected = whole(model)
    headers = {each.name: (each.parameters, each.bias) for each in facts(config, stored(model)).modules}
    assert headers == expected
    formula = sorted((each.parameters, each.bias) for each in facts(config, None).modules)
    assert formula == sorted(expected.values())


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("llama", "LlamaModel"),
        ("llama", "LlamaForSequenceClassification"),
        ("bert", "BertForMaskedLM"),
        ("bert", "BertForSequenceClassification"),
        ("roberta", "RobertaForMaskedLM"),
        ("xlm-roberta", "XLMRobertaForSequenceClassification"),
        ("modernbert", "ModernBertForMaskedLM"),
        ("modernbert", "ModernBertForSequenceClassification"),
    ],
)
def test_the_head_that_a_class_has_is_counted(family: str, kind: str) -> None:
    config, model = built(family, {}, kind)
    parameters = sum(each.numel() for each in model.parameters())
    assert facts(config, None).parameters == parameters
    assert facts(config, stored(model)).parameters == parameters
