"""A checkpoint becomes the model class it names, or an error that says what is wrong with it."""

from __future__ import annotations

import json

import pytest
import torch

from tests.models import tiny_llama
from tunesmith.errors import EngineError
from tunesmith.model.attention import NAME, prefer_short_rows
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
    ],
)
def test_a_checkpoint_that_does_not_fit_is_told(tmp_path, change, words):
    tiny_llama(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(EngineError, match=words):
        load_model(tmp_path, "fp32", "sdpa", CPU)


def test_compute_is_what_was_asked_for_and_auto_decides(monkeypatch):
    assert [resolve_compute(wanted, CPU) for wanted in ("bf16", "fp32")] == ["bf16", "fp32"]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert resolve_compute("auto", CPU) == "bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    assert resolve_compute("auto", CPU) == "fp32"


@pytest.mark.parametrize("tokens", [2, 33, 255])
@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_short_row_attention_gives_the_numbers_of_torchs_kernel(tmp_path, tokens, compute, monkeypatch):
    tiny_llama(tmp_path)
    ids = torch.randint(0, 300, (3, tokens), generator=torch.Generator().manual_seed(2))
    found = []
    for short in (False, True):
        model = load_model(tmp_path, compute, "sdpa", CPU)
        embeddings = model.get_input_embeddings()
        embeddings.weight.requires_grad_(True)
        if short:
            prefer_short_rows(model)
            monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", None)
        logits = model(ids).logits
        logits.float().logsumexp(-1).sum().backward()
        found.append((logits.float().detach(), embeddings.weight.grad.float()))
    tolerance = {"rtol": 1e-4, "atol": 1e-3} if compute == "fp32" else {"rtol": 0.1, "atol": 0.3}
    torch.testing.assert_close(found[0][0], found[1][0], **tolerance)
    apart = (found[0][1] - found[1][1]).norm() / found[0][1].norm()
    assert apart < (1e-5 if compute == "fp32" else 0.03)
    assert model.config._attn_implementation == NAME


def test_rows_that_are_not_short_and_plain_go_to_torchs_kernel(tmp_path):
    tiny_llama(tmp_path)
    ids = torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(2))
    model = load_model(tmp_path, "fp32", "sdpa", CPU)
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).logits
        prefer_short_rows(model)
        found = model(ids, attention_mask=mask).logits
    torch.testing.assert_close(found[0, 7:], expected[0, 7:])
    torch.testing.assert_close(found[1], expected[1])


def test_a_head_that_is_not_the_models_is_found_out(tmp_path):
    tiny_llama(tmp_path)
    model = load_model(tmp_path, "fp32", "sdpa", CPU)
    ids = torch.arange(10)
    check(model, Head.of(model), ids)
    with pytest.raises(EngineError, match="LlamaForCausalLM makes its logits in a way"):
        check(model, Head(model.lm_head.weight, None, 0.5, 0.0), ids)
