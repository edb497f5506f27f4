"""What kind of model a checkpoint is: experts, state spaces, windows, embeddings, rerankers; and hostile ones."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.knobs import BASE, FACTS
from tests.planning.published import PUBLISHED
from tests.planning.test_parameters import TINY, unquantised
from tunesmith.api.models import MambaConfig, MoeConfig
from tunesmith.errors import Invalid, NotBuilt
from tunesmith.planning.automodel import lower
from tunesmith.planning.facts import facts
from tunesmith.planning.families import FAMILIES
from tunesmith.planning.headers import Tensor, read_header
from tunesmith.spec.automodel import AutomodelJobInput

CONFIGS = {name: config for name, config, _ in PUBLISHED}


def test_experts_are_told() -> None:
    assert facts(CONFIGS["Qwen/Qwen3-30B-A3B"], None).moe == MoeConfig(
        num_experts=128, num_experts_per_tok=8, num_expert_layers=48, expert_ffn_size=768, num_shared_experts=0
    )
    assert facts(CONFIGS["deepseek-ai/DeepSeek-V3"], None).moe == MoeConfig(
        num_experts=256, num_experts_per_tok=8, num_expert_layers=58, expert_ffn_size=2048, num_shared_experts=1
    )
    assert facts(TINY, None).moe is None


def test_state_space_layers_are_told() -> None:
    hybrid = {
        "architectures": ["NemotronHForCausalLM"],
        "model_type": "nemotron_h",
        "hybrid_override_pattern": "M-M*-",
        "num_hidden_layers": 5,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 100,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "n_groups": 2,
        "ssm_state_size": 32,
        "conv_kernel": 4,
    }
    assert facts(hybrid, None).mamba == MambaConfig(
        is_hybrid=True, num_mamba_layers=2, num_attention_layers=1, num_mlp_layers=2, state_size=32, conv_kernel=4
    )
    with pytest.raises(Invalid, match="'hybrid_override_pattern' must be of the letters"):
        facts({**hybrid, "hybrid_override_pattern": "MX"}, None)


def test_a_window_counts_where_attention_uses_it() -> None:
    assert facts(CONFIGS["mistralai/Mistral-7B-v0.1"], None).sliding_window == 4096
    assert facts({**CONFIGS["mistralai/Mistral-7B-v0.1"], "sliding_window": None}, None).sliding_window is None
    qwen = {**CONFIGS["Qwen/Qwen2.5-7B"], "sliding_window": 131072}
    assert facts(qwen, None).sliding_window is None
    assert facts({**qwen, "use_sliding_window": True}, None).sliding_window == 131072


@pytest.mark.parametrize(
    ("changes", "names", "files"),
    [
        ({}, ["acme/Llama-Embed-1B"], []),
        ({}, [], ["1_Pooling/config.json"]),
        ({}, [], ["modules.json"]),
        ({"model_type": "mpnet", "architectures": ["MPNetModel"]}, [], []),
    ],
)
def test_embedding_models_are_recognised(changes: dict[str, Any], names: list[str], files: list[str]) -> None:
    assert not facts(TINY, unquantised()).is_embedding
    assert facts({**TINY, **changes}, unquantised(), names=names, files=files).is_embedding


def test_rerankers_are_recognised_and_are_no_embedding_models() -> None:
    known = facts({**TINY, "architectures": ["LlamaForSequenceClassification"]}, unquantised(), names=["embed"])
    assert (known.is_reranker, known.is_embedding) == (True, False)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"is_reranker": True}, Invalid, "default/base .* cannot be fine-tuned; .* take an embedding model"),
        ({"is_embedding": True}, Invalid, "is taken for an embedding model, .* set training.finetuning_type to lora_m"),
        ({"quantization": "gptq"}, NotBuilt, r"is quantised \(gptq\), .* take the unquantised checkpoint"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_an_alternative(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        lower(AutomodelJobInput.model_validate(BASE), replace(FACTS, **changes), run="r", model="default/base")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"is_embedding": True}, NotBuilt, "is taken for an embedding model, .* take a causal language model"),
        (
            {"quantization": "gptq"},
            Invalid,
            r"all_weights cannot be trained on default/base, .* quantised \(gptq\); take",
        ),
    ],
)
def test_all_weights_have_their_own_rules(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    asked = AutomodelJobInput.model_validate({**BASE, "training": {"finetuning_type": "all_weights"}})
    with pytest.raises(error, match=message) as refusal:
        lower(asked, replace(FACTS, **changes), run="r", model="default/base")
    assert type(refusal.value) is error


def test_tokens_that_begin_and_end_a_text_are_what_the_configuration_says() -> None:
    known = facts({**TINY, "bos_token_id": 1, "eos_token_id": [3, 2, True]}, unquantised())
    assert (known.start_ids, known.end_ids) == ((1,), (2, 3))
    assert facts({**TINY, "bos_token_id": None}, unquantised()).start_ids == ()


@pytest.mark.parametrize(
    ("name", "all_weights", "lora"),
    [
        ("meta-llama/Llama-3.2-1B", 1, 1),
        ("meta-llama/Llama-3.1-8B", 4, 1),
        ("meta-llama/Llama-3.1-70B", 32, 4),
    ],
)
def test_gpus_follow_from_the_bytes_of_training(name: str, all_weights: int, lora: int) -> None:
    known = facts(CONFIGS[name], None)
    assert (known.minimum_gpus_all_weights, known.minimum_gpus_lora) == (all_weights, lora)


def test_precision_is_that_of_the_stored_weights_else_as_the_configuration_says() -> None:
    assert facts({**TINY, "torch_dtype": "float32"}, unquantised()).precision == "bfloat16"
    assert facts({**TINY, "torch_dtype": "float16"}, None).precision == "float16"
    assert facts({**TINY, "dtype": "bfloat16"}, None).precision == "bfloat16"
    assert facts(TINY, None).precision == "float32"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**12),
        ("num_hidden_layers", -1),
        ("hidden_size", 2**40),
        ("vocab_size", 1.5),
        ("vocab_size", float("nan")),
        ("num_attention_heads", True),
        ("intermediate_size", 10**50),
        ("tie_word_embeddings", "yes"),
        ("architectures", "LlamaForCausalLM"),
        ("model_type", ["llama"]),
        ("text_config", 5),
        ("model_type", "a\ud800"),
        ("architectures", ["a\0"]),
        ("quantization_config", "gptq"),
        ("quantization_config", {"quant_method": 4}),
        ("head_dim", 0),
        ("layer_types", {"a": 1}),
        ("max_position_embeddings", "long"),
    ],
)
def test_a_hostile_value_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(Invalid, match=r"config\.json: '(quant_method|" + key + ")' must be"):
        facts({**TINY, key: value}, None)


def test_sizes_that_multiply_beyond_reason_are_refused() -> None:
    huge = {**TINY, "num_hidden_layers": 10_000, "hidden_size": 2**31 - 1, "vocab_size": 2**31 - 1}
    with pytest.raises(Invalid, match="more parameters than any model has"):
        facts({**huge, "intermediate_size": 2**31 - 1}, None)


KEYS = sorted({key for _, config, _ in PUBLISHED for key in config} | {"text_config", "quantization_config", "dtype"})
LEAVES = st.none() | st.booleans() | st.integers(-3, 10**13) | st.floats() | st.text(max_size=5)
JUNK = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner), max_leaves=4
)


def told(config: dict[str, Any], tensors: dict[str, Tensor] | None) -> str:
    """The refusal, "" without one."""
    try:
        known = facts(config, tensors)
    except Invalid as error:
        return error.message
    assert known.parameters >= 0
    return ""


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(PUBLISHED),
    st.dictionaries(st.sampled_from(KEYS), JUNK, max_size=4),
    st.none() | st.sampled_from(sorted(FAMILIES)),
)
def test_no_configuration_does_more_than_be_refused(
    published: tuple[str, dict[str, Any], int], changes: dict[str, Any], family: str | None
) -> None:
    config = {**published[1], **({"model_type": family} if family else {}), **changes}
    refusal = told(config, None)
    assert not refusal or refusal.startswith("config.json: ")


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=20), JUNK, max_size=4))
def test_no_header_does_more_than_be_refused(entries: dict[str, Any]) -> None:
    head = json.dumps(entries).encode()
    if entries:
        with pytest.raises(Invalid, match=r"^w\.safetensors: its safetensors header cannot be read"):
            read_header(len(head).to_bytes(8, "little") + head, "w.safetensors")


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=12) | st.sampled_from(["a.qweight", "a.weight", "lm_head.weight", "x_blocks", "1.2.weight"]),
        st.builds(
            Tensor,
            st.sampled_from(["U8", "I8", "I32", "F32", "odd"]),
            st.lists(st.integers(0, 2**48), max_size=4).map(tuple),
        ),
        max_size=5,
    ),
    st.sampled_from(["gptq", "awq", "bitsandbytes", "mxfp4", "other", ""]),
)
def test_no_tensors_do_more_than_be_refused(tensors: dict[str, Tensor], method: str) -> None:
    config = {**TINY, "model_type": "stranger", "quantization_config": {"quant_method": method} if method else None}
    refusal = told(config, tensors)
    assert not refusal or refusal.startswith("config.json: ")
