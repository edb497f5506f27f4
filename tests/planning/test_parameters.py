"""How many parameters a checkpoint has, from its configuration and from its headers, quantised or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from tests.planning.published import PUBLISHED
from tunesmith.errors import Invalid
from tunesmith.planning.facts import facts
from tunesmith.planning.families import FAMILIES
from tunesmith.planning.headers import Tensor, weight_files

TINY: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 1,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 100,
    "max_position_embeddings": 128,
}
# q, k, v, o, gate, up, down, two norms and the last; embedding and head.
TINY_PARAMETERS = 64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 64 * 128 + 3 * 64 + 2 * 100 * 64
LINEARS = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (128, 64),
    "mlp.up_proj": (128, 64),
    "mlp.down_proj": (64, 128),
}


def unquantised() -> dict[str, Tensor]:
    return {
        "model.embed_tokens.weight": Tensor("BF16", (100, 64)),
        "lm_head.weight": Tensor("BF16", (100, 64)),
        "model.norm.weight": Tensor("BF16", (64,)),
        "model.layers.0.input_layernorm.weight": Tensor("BF16", (64,)),
        "model.layers.0.post_attention_layernorm.weight": Tensor("BF16", (64,)),
        **{f"model.layers.0.{name}.weight": Tensor("BF16", shape) for name, shape in LINEARS.items()},
    }


def packed(method: str) -> dict[str, Tensor]:
    """The same checkpoint as the method stores it."""
    tensors = unquantised()
    for name, (out, into) in LINEARS.items():
        stem = f"model.layers.0.{name}"
        del tensors[f"{stem}.weight"]
        if method == "gptq":
            tensors[f"{stem}.qweight"] = Tensor("I32", (into // 8, out))
            tensors[f"{stem}.qzeros"] = Tensor("I32", (1, out // 8))
            tensors[f"{stem}.scales"] = Tensor("F16", (1, out))
            tensors[f"{stem}.g_idx"] = Tensor("I32", (into,))
        elif method == "awq":
            tensors[f"{stem}.qweight"] = Tensor("I32", (into, out // 8))
            tensors[f"{stem}.qzeros"] = Tensor("I32", (1, out // 8))
            tensors[f"{stem}.scales"] = Tensor("F16", (1, out))
        elif method == "bitsandbytes":
            tensors[f"{stem}.weight"] = Tensor("U8", (out * into // 2, 1))
            tensors[f"{stem}.weight.absmax"] = Tensor("U8", (out * into // 64,))
            tensors[f"{stem}.weight.quant_map"] = Tensor("F32", (16,))
            tensors[f"{stem}.weight.quant_state.bitsandbytes__nf4"] = Tensor("U8", (90,))
        else:
            tensors[f"{stem}.weight"] = Tensor("F8_E4M3", (out, into))
            tensors[f"{stem}.weight_scale_inv"] = Tensor("F32", (1, 1))
    return tensors


@pytest.mark.parametrize(("name", "config", "parameters"), PUBLISHED, ids=[each[0] for each in PUBLISHED])
def test_the_formula_gives_the_published_count(name: str, config: dict[str, Any], parameters: int) -> None:
    assert facts(config, None).parameters == parameters


@pytest.mark.parametrize(("name", "config", "parameters"), PUBLISHED, ids=[each[0] for each in PUBLISHED])
def test_transformers_gives_the_published_count(name: str, config: dict[str, Any], parameters: int) -> None:
    known = transformers.CONFIG_MAPPING[config["model_type"]](**config)
    with torch.device("meta"):
        model = getattr(transformers, config["architectures"][0])(known)
    assert sum(each.numel() for each in model.parameters()) == parameters


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_a_silent_configuration_means_is_what_transformers_takes(family: str) -> None:
    known = transformers.CONFIG_MAPPING[family]()
    for key, value in FAMILIES[family].defaults.items():
        if key != "qkv_bias":
            assert getattr(known, key) == value, key
    assert known.tie_word_embeddings == FAMILIES[family].defaults.get("tie_word_embeddings", False)


def test_a_head_that_is_the_embedding_counts_once_though_it_be_stored_twice() -> None:
    assert facts(TINY, unquantised()).parameters == TINY_PARAMETERS
    assert facts({**TINY, "tie_word_embeddings": True}, unquantised()).parameters == TINY_PARAMETERS - 6400


def test_buffers_are_not_parameters() -> None:
    buffers = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": Tensor("F32", (8,)),
        "model.embeddings.position_ids": Tensor("I64", (1, 128)),
        "h.0.attn.bias": Tensor("F32", (1, 1, 128, 128)),
        "h.0.attn.masked_bias": Tensor("F32", ()),
        "mask": Tensor("BOOL", (9,)),
    }
    assert facts(TINY, unquantised() | buffers).parameters == TINY_PARAMETERS


@pytest.mark.parametrize(
    ("method", "precision"), [("gptq", "int4"), ("awq", "int4"), ("bitsandbytes", "int4"), ("fp8", "float8")]
)
def test_a_quantised_checkpoint_has_as_many_parameters_and_linear_layers_as_before(method: str, precision: str) -> None:
    config = {**TINY, "quantization_config": {"quant_method": method, "bits": 4, "load_in_4bit": True}}
    plain, known = facts(TINY, unquantised()), facts(config, packed(method))
    assert (known.parameters, known.quantization, known.precision) == (TINY_PARAMETERS, method, precision)
    assert {each.name: each for each in known.linears} == {each.name: each for each in plain.linears}
    stranger = facts({**config, "model_type": "stranger"}, packed(method))
    assert stranger.parameters == TINY_PARAMETERS
    if method != "bitsandbytes":  # the shape is packed away
        assert stranger.linears == plain.linears


def test_packed_experts_of_an_unknown_family_are_counted_by_their_blocks() -> None:
    tensors = unquantised() | {
        "model.layers.0.mlp.experts.gate_up_proj_blocks": Tensor("U8", (4, 64, 2, 16)),
        "model.layers.0.mlp.experts.gate_up_proj_scales": Tensor("U8", (4, 64, 2)),
    }
    config = {**TINY, "model_type": "stranger", "quantization_config": {"quant_method": "mxfp4"}}
    known = facts(config, tensors)
    assert (known.parameters, known.precision) == (TINY_PARAMETERS + 4 * 64 * 64, "int4")


def test_an_unknown_family_is_counted_exactly_from_its_headers_and_as_a_llama_without() -> None:
    stranger = {**TINY, "model_type": "stranger"}
    assert facts(stranger, unquantised()).parameters == TINY_PARAMETERS
    assert facts(stranger, None).parameters == TINY_PARAMETERS
    sparse = {key: value for key, value in stranger.items() if "heads" not in key and "intermediate" not in key}
    known = facts(sparse, unquantised())
    assert (known.parameters, known.num_attention_heads, known.ffn_hidden_size) == (TINY_PARAMETERS, 0, 0)


def test_a_model_that_also_sees_is_counted_from_its_files_or_not_at_all() -> None:
    config = {"model_type": "llava", "architectures": ["L"], "text_config": TINY, "vision_config": {"hidden_size": 8}}
    tower = {"vision_tower.patch.weight": Tensor("F32", (8, 3, 2, 2))}
    known = facts(config, unquantised() | tower)
    assert (known.parameters, known.family, known.hidden_size) == (TINY_PARAMETERS + 96, "llava", 64)
    with pytest.raises(Invalid, match="'llava' cannot be counted from its configuration alone; upload safetensors"):
        facts(config, None)


def test_the_text_part_of_a_gemma_3_that_sees_may_leave_out_what_is_the_familys_default() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    config = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 8}}
    known = facts(config, unquantised())
    assert (known.family, known.num_attention_heads, known.num_kv_heads, known.vocab_size) == ("gemma3", 8, 4, 262208)
    assert (known.tied_embeddings, known.gated_mlp, known.context_size) == (True, True, 131072)


def test_routers_and_routed_experts_take_no_adapter_but_shared_experts_do() -> None:
    experts = {
        "model.layers.0.mlp.gate.weight": Tensor("BF16", (4, 64)),
        "model.layers.0.mlp.experts.3.up_proj.weight": Tensor("BF16", (32, 64)),
        "model.layers.0.mlp.shared_expert.up_proj.weight": Tensor("BF16", (32, 64)),
        "model.layers.0.mlp.shared_expert_gate.weight": Tensor("BF16", (1, 64)),
    }
    known = facts({**TINY, "model_type": "stranger"}, experts)
    assert [each.name for each in known.linears] == ["model.layers.0.mlp.shared_expert.up_proj"]


def test_the_files_of_a_model_are_those_of_its_index_and_no_second_copy() -> None:
    paths = ["config.json", "consolidated.safetensors", "model-1.safetensors", "model-2.safetensors", "a/b.safetensors"]
    assert weight_files(paths) == ["model-1.safetensors", "model-2.safetensors"]
    assert weight_files(["consolidated.safetensors"]) == ["consolidated.safetensors"]
    assert weight_files([*paths, "model.safetensors"]) == ["model.safetensors"]
    assert weight_files(paths, {"weight_map": {"a": "model-2.safetensors"}}) == ["model-2.safetensors"]
    with pytest.raises(Invalid, match=r"names model-9.safetensors, which is not in the fileset"):
        weight_files(paths, {"weight_map": {"a": "model-9.safetensors"}})
    with pytest.raises(Invalid, match="'weight_map' must map"):
        weight_files(paths, {"weight_map": []})
    with pytest.raises(Invalid, match=r"model-00001-of-00002.safetensors is a part .*index.json, .* is missing"):
        weight_files(["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
