"""Operations against a count by hand and against torch's own counter; the device's rate; memory at its peak."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from tests.models import linear_names
from tunesmith.handoff.plan import LoraPart
from tunesmith.model.head import Head
from tunesmith.model.lora import adapt
from tunesmith.model.noise import Noise
from tunesmith.train import gauge
from tunesmith.train.gauge import Gauge, attention_layers, pairs

CPU = torch.device("cpu")
H, INNER, V, HEADS, D, LAYERS = 64, 96, 128, 4, 16, 2
SHAPE = {
    "vocab_size": V,
    "hidden_size": H,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
MATRICES = LAYERS * (2 * H * H + 2 * H * H // 2 + 3 * H * INNER)


def llama(**changes) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**SHAPE, attn_implementation="eager", **changes))


def gauge_of(model, trained=()) -> Gauge:
    return Gauge(model, trained, Head.of(model), CPU)


def counted(model, tokens: int) -> float:
    """What torch counts for one row, all of whose tokens are trained on; it counts pairs that look ahead, too."""
    ids = torch.zeros(1, tokens, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_(True)
        model(inputs_embeds=embedded, use_cache=False).logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("tied", [True, False])
def test_full_training_needs_six_operations_a_weight_and_token_as_torch_counts_them(tied):
    model, tokens = llama(tie_word_embeddings=tied), 24
    ahead = LAYERS * 12 * HEADS * D * (tokens**2 - pairs(tokens, None))
    ours = gauge_of(model, model.parameters()).flops_of([tokens], tokens)
    assert ours == (6 * MATRICES + 6 * H * V) * tokens + LAYERS * 12 * HEADS * D * tokens * (tokens + 1) / 2
    assert ours + ahead == pytest.approx(counted(model, tokens), rel=0.02)


def test_adapters_need_four_operations_a_frozen_weight_and_six_for_their_own_as_torch_counts_them():
    model, tokens, rank = llama().requires_grad_(False), 24, 4
    part = LoraPart(rank=rank, alpha=8, dropout=0.0, modules=linear_names(LAYERS))
    weights = [w for adapter in adapt(model, part, Noise(1)).values() for w in (adapter.A_rI, adapter.B_Or)]
    own = sum(weight.numel() for weight in weights)
    ahead = LAYERS * 12 * HEADS * D * (tokens**2 - pairs(tokens, None))
    ours = gauge_of(model, weights).flops_of([tokens], tokens)
    assert ours - LAYERS * 12 * HEADS * D * tokens * (tokens + 1) / 2 == (4 * MATRICES + 4 * H * V + 6 * own) * tokens
    in_place = 2 * own * tokens  # `addmm_`, which torch's counter does not know
    assert ours + ahead == pytest.approx(counted(model, tokens) + in_place, rel=0.02)


def test_the_head_counts_at_trained_positions_only_and_rows_do_not_see_each_other():
    one = gauge_of(llama())
    assert one.flops_of([10], 7) - one.flops_of([10], 3) == 4 * (4 * H * V)
    assert one.flops_of([10, 10], 6) == 2 * one.flops_of([10], 3)
    assert one.flops_of([20], 6) > one.flops_of([10, 10], 6)


def test_a_window_bounds_the_pairs():
    assert pairs(5, None) == pairs(5, 9) == 15
    assert pairs(5, 2) == 1 + 2 + 2 + 2 + 2
    model = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=3))
    assert attention_layers(model) == [gauge.Layer(HEADS, D, 3)] * LAYERS
    assert {layer.window for layer in attention_layers(llama())} == {None}


def test_of_the_experts_those_count_that_a_token_goes_through():
    shape = MixtralConfig(**SHAPE, num_local_experts=8, num_experts_per_tok=2)
    one, trained = gauge_of(MixtralForCausalLM(shape)), 0
    attention = LAYERS * 12 * HEADS * D
    router, experts, projections = H * 8, 3 * H * INNER, 3 * H * H
    assert one.flops_of([1], trained) - attention == 4 * LAYERS * (projections + router + 2 * experts)


def test_utilisation_is_a_part_of_the_rate_of_the_models_own_products(monkeypatch):
    monkeypatch.setattr(gauge, "product_rate", lambda model, device: 1e9)
    assert gauge_of(llama()).utilisation(5e8, 2.0) == 0.25
    monkeypatch.setattr(gauge, "product_rate", lambda model, device: None)
    assert gauge_of(llama()).utilisation(5e8, 2.0) is None


def test_the_rate_is_that_of_the_device():
    model = nn.Module()
    model.wide = nn.Linear(1024, 1024)
    model.get_output_embeddings = lambda: None
    x_NI = torch.randn(512, 1024)
    seconds = min(_seconds(lambda: model.wide(x_NI)) for _ in range(20))
    assert 1 / 3 < gauge.product_rate(model, CPU) / (2 * 512 * 1024**2 / seconds) < 3  # others may be at work


def test_peak_memory_grows_by_what_was_held_and_does_not_fall():
    one = gauge_of(llama())
    before = one.peak_memory()
    held = torch.ones(before // 4 + (64 << 20))  # floats of 4 bytes: more than the peak so far
    assert held.nbytes <= one.peak_memory() < before + 2 * held.nbytes
    del held
    assert one.peak_memory() >= before + (64 << 20)


def _seconds(work) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) / torch.get_num_threads()
