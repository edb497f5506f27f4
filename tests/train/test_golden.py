"""Numbers that must not move: a loss and its gradient in float64, on weights and rows that no generator drew."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from tests.models import linear_names
from tests.threads import one_thread
from tunesmith.handoff.plan import LoraPart
from tunesmith.model.attention import attend_by_rows, bounds_of
from tunesmith.model.head import Head, hidden_states
from tunesmith.model.lora import adapt, names_of
from tunesmith.model.noise import Noise
from tunesmith.train.losses import summed_cross_entropy

LENGTHS = (7, 19, 4)
GOLDEN = {
    "adapters": (104.42789433090206, 161.92986362780684),
    "all weights": (106.38723280905256, 1013.2486324366638),
    "smoothed": (108.73456819700165, 1045.126168478755),
}
"""Summed loss, and the L2 norm of its gradient. From this engine; the same model by hand is the test below."""


def wave(shape, number):
    """Values in +-1 that are the same on every machine, to the last bits of a sine."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(1, count + 1, dtype=torch.float64) * (0.7 + number / 13)).view(shape)


class Norm(nn.Module):
    """The norm of Llama, without its detour over float32."""

    def __init__(self, weight, eps):
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def turns(x, position_ids):
    """Cosines and sines of the rotary embedding, in float64."""
    size = 32 // 4
    frequencies = 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = position_ids[..., None].double() * frequencies
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


@pytest.fixture
def model():
    with one_thread():
        yield made()


def made():
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).double().eval()
    for name, module in list(model.named_modules()):
        if type(module).__name__ == "LlamaRMSNorm":
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, Norm(module.weight, module.variance_epsilon))
    model.model.rotary_emb.forward = turns
    for number, weight in enumerate(model.parameters()):
        weight.data = wave(weight.shape, number) * 0.3 + (1.0 if weight.dim() == 1 else 0.0)
    return model


def rows():
    ids = (torch.arange(sum(LENGTHS)) * 37 + 11) % 96
    places = torch.tensor([i for i in range(sum(LENGTHS) - 1) if i + 1 not in (7, 26) and i % 3])
    return ids, places


def loss_of(model, smoothing=0.0):
    ids, places = rows()
    attend_by_rows(model, "sdpa")
    hidden_BTH = hidden_states(model, ids[None], bounds_of(LENGTHS))
    return summed_cross_entropy(hidden_BTH[0, places], ids[places + 1], Head.of(model), smoothing)


def numbers(loss, weights):
    gradient = torch.autograd.grad(loss, weights)
    return float(loss.detach()), float(torch.stack([each.square().sum() for each in gradient]).sum().sqrt())


def found(model, kind):
    if kind != "adapters":
        return numbers(loss_of(model, 0.1 if kind == "smoothed" else 0.0), list(model.parameters()))
    adapters = adapt(model, LoraPart(rank=3, alpha=5, dropout=0.0, modules=linear_names()), Noise(1))
    weights = list(names_of(adapters).values())
    for number, weight in enumerate(weights):
        weight.data = wave(weight.shape, number + 50) * 0.1
    return numbers(loss_of(model), weights)


@pytest.mark.parametrize("kind", GOLDEN)
def test_losses_and_gradients_stay_what_they_were(model, kind):
    assert found(model, kind) == pytest.approx(GOLDEN[kind], rel=1e-9)


def test_they_are_those_of_each_row_by_itself_in_transformers(model):
    ids, places = rows()
    logits, start = [], 0
    for length in LENGTHS:
        logits.append(model(ids[None, start : start + length], use_cache=False).logits[0])
        start += length
    loss = torch.nn.functional.cross_entropy(torch.cat(logits)[places], ids[places + 1], reduction="sum")
    assert numbers(loss, list(model.parameters())) == pytest.approx(GOLDEN["all weights"], rel=1e-9)
