"""A checkpoint becomes the model class it names, or an error that says what is wrong with it."""

from __future__ import annotations

import json

import pytest
import torch

from tests.models import tiny_llama
from tunesmith.errors import EngineError
from tunesmith.model.head import Head, check
from tunesmith.model.load import load_model, resolve_compute

CPU = torch.device("cpu")


def test_weights_are_frozen_and_in_the_compute_type(tmp_path):
    tiny_llama(tmp_path)
    model = load_model(tmp_path, "bf16", "sdpa", CPU)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert {(weight.dtype, weight.requires_grad) for weight in model.parameters()} == {(torch.bfloat16, False)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architectures": ["NoSuchModel"]}, r"architectures\[0\] \(NoSuchModel\) is not a model of transformers"),
        ({"architectures": []}, "names no class"),
        ({"num_hidden_layers": 3}, "the checkpoint lacks 9 weights, such as model.layers.2"),
        ({"intermediate_size": 48}, r"mlp.down_proj.weight is \(32, 64\) .* and config.json makes it \(32, 48\)"),
        ({"num_attention_heads": 3}, r"(?s)cannot be loaded: .*hidden size \(32\) is not a multiple of"),
        ({"hidden_act": "nope"}, "the model cannot be loaded: config.json names 'nope', which is not known"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_told(tmp_path, change, words):
    tiny_llama(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(EngineError, match=words):
        load_model(tmp_path, "fp32", "sdpa", CPU)


def test_a_weight_file_that_is_cut_short_is_told(tmp_path):
    tiny_llama(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(EngineError, match=r"the model cannot be loaded: .* file not fully covered"):
        load_model(tmp_path, "fp32", "sdpa", CPU)


def test_compute_is_what_was_asked_for_and_auto_decides(monkeypatch):
    assert [resolve_compute(wanted, CPU) for wanted in ("bf16", "fp32")] == ["bf16", "fp32"]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert resolve_compute("auto", CPU) == "bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    assert resolve_compute("auto", CPU) == "fp32"


def test_a_head_that_is_not_the_models_is_found_out(tmp_path):
    tiny_llama(tmp_path)
    model = load_model(tmp_path, "fp32", "sdpa", CPU)
    ids = torch.arange(10)
    check(model, Head.of(model), ids)
    with pytest.raises(EngineError, match="LlamaForCausalLM makes its logits in a way"):
        check(model, Head(model.lm_head.weight, None, 0.5, 0.0), ids)


def test_a_checkpoint_whose_weights_are_no_numbers_is_told(tmp_path):
    tiny_llama(tmp_path)
    model = load_model(tmp_path, "fp32", "sdpa", CPU)
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(EngineError, match=r"answers with what is no number .* in torch.float32: upload the checkpoint"):
        check(model, Head.of(model), torch.arange(10))
