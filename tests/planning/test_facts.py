"""What a checkpoint says about itself."""

from __future__ import annotations

import struct

import pytest

from tests.live import safetensors
from tunesmith.errors import Invalid
from tunesmith.planning.facts import facts
from tunesmith.planning.headers import read_header

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 12,
    "hidden_size": 4,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 10,
    "max_position_embeddings": 128,
}


def header(**shapes: list[int]) -> dict[str, object]:
    return read_header(safetensors({name.replace("__", "."): shape for name, shape in shapes.items()}), "x")


def framed(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def test_parameters_are_counted_from_the_headers() -> None:
    tensors = header(model__embed_tokens__weight=[10, 4], model__norm__weight=[4], lm_head__weight=[10, 4])
    assert facts(CONFIG, tensors, "").parameters == 40 + 4 + 40


def test_a_file_that_ends_before_its_last_tensor_is_told_by_its_header() -> None:
    whole = safetensors({"model.norm.weight": [64]})
    assert read_header(whole, "x", len(whole)).keys() == {"model.norm.weight"}
    with pytest.raises(Invalid, match=rf"x: cut short: .* {len(whole)} bytes, and it has {len(whole) - 1}; upload"):
        read_header(whole[:-1], "x", len(whole) - 1)


def test_linear_layers_are_all_but_embedding_and_head_in_layer_order() -> None:
    names = [f"model.layers.{i}.self_attn.q_proj.weight" for i in (10, 9, 0)]
    shapes = {name: [6, 4] for name in names} | {"lm_head.weight": [10, 4], "model.embed_tokens.weight": [10, 4]}
    known = facts(CONFIG, read_header(safetensors(shapes), "x"), "")
    assert [linear.name for linear in known.linears] == [f"model.layers.{i}.self_attn.q_proj" for i in (0, 9, 10)]
    assert (known.linears[0].in_features, known.linears[0].out_features) == (4, 6)


def test_heads_without_groups_are_their_own_keys_and_values() -> None:
    assert facts(CONFIG, {}, "").num_kv_heads == 2
    assert facts({**CONFIG, "num_key_value_heads": 1}, {}, "").num_kv_heads == 1


def test_a_missing_or_wrong_key_of_the_configuration_is_named() -> None:
    with pytest.raises(Invalid, match=r"config.json: 'hidden_size' is missing"):
        facts({key: value for key, value in CONFIG.items() if key != "hidden_size"}, {}, "")
    with pytest.raises(
        Invalid, match=r"config.json: 'vocab_size' must be a whole number from 1 to 2,147,483,647, not 'many'"
    ):
        facts({**CONFIG, "vocab_size": "many"}, {}, "")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GGUF",
        b"\xff" * 8,
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 2) + b"{]",
        framed(b'{"a\\ud800": {"dtype": "F32", "shape": [1]}}'),
        framed(b'{"a": {"dtype": "F32", "shape": [-1.5]}}'),
        framed(b"[" * 100_000),
        struct.pack("<Q", 99) + b"{}",
    ],
)
def test_what_is_no_safetensors_file_is_refused_by_name(head: bytes) -> None:
    with pytest.raises(Invalid, match=r"^weights\.safetensors: "):
        read_header(head, "weights.safetensors")
