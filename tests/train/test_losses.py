"""The chunked loss is cross-entropy, and its gradient is that of autograd."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tunesmith.model.head import Head
from tunesmith.train import losses
from tunesmith.train.losses import summed_cross_entropy


@pytest.mark.parametrize("chunk_bytes", [1, 4 * 11 * 3, 1 << 20])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, 0.0), (0.25, 0.0), (1.0, 3.0), (2.0, 5.0)])
def test_loss_and_gradient_equal_autograds(monkeypatch, chunk_bytes, biased, scale, softcap):
    monkeypatch.setattr(losses, "CHUNK_BYTES", chunk_bytes)
    draw = torch.Generator().manual_seed(1)
    weight, hidden = torch.randn(11, 6, generator=draw), torch.randn(8, 6, generator=draw, requires_grad=True)
    bias = torch.randn(11, generator=draw) if biased else None
    targets = torch.randint(0, 11, (8,), generator=draw)
    ours = summed_cross_entropy(hidden, targets, Head(weight, bias, scale, softcap))
    (gradient,) = torch.autograd.grad(ours * 0.5, hidden)
    logits = functional.linear(hidden, weight, bias) * scale
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    expected = functional.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected * 0.5, hidden)[0], rtol=1e-4, atol=1e-5)


def test_no_trained_token_is_no_loss():
    hidden = torch.zeros(0, 6, requires_grad=True)
    loss = summed_cross_entropy(hidden, torch.zeros(0, dtype=torch.long), Head(torch.ones(11, 6), None, 1.0, 0.0))
    loss.backward()
    assert loss.item() == 0
