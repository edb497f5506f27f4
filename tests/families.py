"""Tiny checkpoints of every family that the engine trains: random weights, windows shorter than the rows of tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.models import tiny_tokenizer

WINDOW = 8
"""Tokens that a sliding attention sees, itself included."""

SHAPE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
KINDS = ["sliding_attention", "full_attention"]

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": WINDOW, "head_dim": 16},
    "mixtral": {"sliding_window": WINDOW, **EXPERTS},
    "qwen2": {
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
        "tie_word_embeddings": True,
    },
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 40},
    "qwen3": {"head_dim": 16, "tie_word_embeddings": True},
    "qwen3_moe": {"head_dim": 16, **EXPERTS, "mlp_only_layers": [1]},
    "phi": {},
    "phi3": {"sliding_window": WINDOW},
    "gemma": {"head_dim": 16},
    "gemma2": {
        "head_dim": 16,
        "sliding_window": WINDOW,
        "layer_types": KINDS,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 4.0,
        "query_pre_attn_scalar": 24,
    },
    "gemma3_text": {
        "head_dim": 16,
        "sliding_window": WINDOW,
        "layer_types": KINDS,
        "query_pre_attn_scalar": 24,
    },
    "gpt_oss": {**EXPERTS, "head_dim": 16, "sliding_window": WINDOW, "layer_types": KINDS, "intermediate_size": 32},
    "nemotron": {},
    "nemotron_h": {
        "num_hidden_layers": 4,
        "hybrid_override_pattern": "M-*E",
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 2,
        "chunk_size": 8,
        "head_dim": 8,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "moe_shared_expert_intermediate_size": 20,
    },
    "granite": {
        "attention_multiplier": 0.2,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 2.0,
    },
    "cohere": {"logit_scale": 0.5},
    "cohere2": {"sliding_window": WINDOW, "layer_types": KINDS, "head_dim": 16, "logit_scale": 0.5},
    "olmo2": {},
    "olmo3": {"sliding_window": WINDOW, "layer_types": KINDS},
    "smollm3": {"no_rope_layers": [1, 0]},
    "starcoder2": {"sliding_window": WINDOW},
    "stablelm": {},
    "seed_oss": {"head_dim": 16},
}
"""Changes to SHAPE by transformers' model_type."""


def tiny(family: str, directory: Path, seed: int = 0, **changes: Any) -> None:
    """Write a checkpoint of the family with `tiny_tokenizer`'s files beside it; the same seed gives the same weights.

    Norms, biases and sinks are random as well, so that leaving one out shows.
    """
    import torch
    import transformers

    tiny_tokenizer(directory)
    config = transformers.CONFIG_MAPPING[family](**{**SHAPE, **FAMILIES[family], **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.data += torch.randn_like(weight) * 0.1
    model.save_pretrained(directory)


def as_mxfp4(directory: Path) -> None:
    """Rewrite a GPT-OSS checkpoint as it was published: experts in blocks of 32 four-bit floats and a scale."""
    from safetensors.torch import load_file, save_file

    path = directory / "model.safetensors"
    found: dict[str, Any] = {}
    for name, tensor in load_file(path).items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            found[f"{name}_blocks"], found[f"{name}_scales"] = _blocks(tensor.mT)
        else:
            found[name] = tensor.bfloat16()
    save_file(found, path, metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    plain = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config |= {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": plain}}
    (directory / "config.json").write_text(json.dumps(config))


LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What three bits of FP4 (E2M1) stand for; the fourth is the sign."""


def _blocks(weight_EOI: Any) -> tuple[Any, Any]:
    """uint8 blocks [E, O, I / 32, 16], low half first, and biased exponents [E, O, I / 32] (OCP MX, 2023)."""
    import torch

    x = weight_EOI.float().unflatten(-1, (-1, 32))
    exponent = torch.floor(torch.log2(x.abs().amax(-1).clamp(min=2**-120))) - 2
    scaled = x / torch.exp2(exponent)[..., None]
    code = (scaled.abs()[..., None] - torch.tensor(LEVELS)).abs().argmin(-1).to(torch.uint8)
    code |= (scaled < 0).to(torch.uint8) << 3
    return (code[..., 0::2] | code[..., 1::2] << 4).contiguous(), (exponent + 127).to(torch.uint8).contiguous()
