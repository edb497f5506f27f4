"""The chunked loss is cross-entropy, and its gradients are those of autograd."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tunesmith.model.head import Head
from tunesmith.train import losses
from tunesmith.train.losses import summed_cross_entropy

N, H, V = 8, 6, 11


def drawn(biased=True, dtype=torch.float32):
    """hidden, weight, bias, targets: the first three require gradients."""
    draw = torch.Generator().manual_seed(1)
    hidden, weight, bias = (torch.randn(shape, generator=draw).to(dtype) for shape in ((N, H), (V, H), (V,)))
    for each in (hidden, weight, bias):
        each.requires_grad_()
    return hidden, weight, bias if biased else None, torch.randint(0, V, (N,), generator=draw)


def reference(hidden, weight, bias, targets, scale=1.0, softcap=0.0, smoothing=0.0):
    """The loss by torch's own functions in float64, and its gradients."""
    given = [each.detach().double().requires_grad_() for each in (hidden, weight, bias) if each is not None]
    logits = functional.linear(*given) * scale
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    loss = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
    return loss, torch.autograd.grad(loss * 0.5, given)


@pytest.mark.parametrize("chunk_bytes", [1, 4 * V * 3, 1 << 20])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, 0.0), (0.25, 0.0), (1.0, 3.0), (2.0, 5.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_all_gradients_equal_autograds_in_float64(monkeypatch, chunk_bytes, biased, scale, softcap, smoothing):
    monkeypatch.setattr(losses, "CHUNK_BYTES", chunk_bytes)
    hidden, weight, bias, targets = drawn(biased)
    ours = summed_cross_entropy(hidden, targets, Head(weight, bias, scale, softcap), smoothing)
    expected, their_gradients = reference(hidden, weight, bias, targets, scale, softcap, smoothing)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=1e-6)
    trained = [each for each in (hidden, weight, bias) if each is not None]
    for gradient, theirs in zip(torch.autograd.grad(ours * 0.5, trained), their_gradients, strict=True):
        torch.testing.assert_close(gradient.double(), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "apart"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
def test_a_head_in_half_precision_gets_gradients_to_its_rounding(monkeypatch, dtype, apart):
    monkeypatch.setattr(losses, "CHUNK_BYTES", 4 * V * 3)
    hidden, weight, bias, targets = drawn(dtype=dtype)
    ours = summed_cross_entropy(hidden, targets, Head(weight, bias, 1.0, 0.0))
    assert ours.dtype == torch.float32
    _, theirs = reference(hidden, weight, bias, targets)
    for gradient, expected in zip(torch.autograd.grad(ours * 0.5, (hidden, weight, bias)), theirs, strict=True):
        assert gradient.dtype == dtype
        assert float((gradient.double() - expected).norm() / expected.norm()) < apart


def test_rare_tokens_get_an_fp16_gradient_where_their_probability_alone_would_vanish():
    """Scaled up by 65536 as in an fp16 run, against float64; p is about 1e-8, below fp16's smallest number."""
    weight = torch.zeros(3, 2, dtype=torch.float16)
    weight[:2, 0] = 18
    weight.requires_grad_()
    loss = summed_cross_entropy(
        torch.ones(4, 2, dtype=torch.float16), torch.zeros(4, dtype=int), Head(weight, None, 1, 0)
    )
    (gradient,) = torch.autograd.grad(loss * 65536, weight)
    expected = 65536 * 4 * torch.softmax(torch.tensor([18.0, 18.0, 0.0], dtype=torch.float64), 0)[2]
    assert float(gradient[2, 0]) == pytest.approx(float(expected), rel=1e-3)


def test_a_tied_head_hands_its_gradient_on_to_the_embedding():
    _, weight, _, targets = drawn()
    ids = torch.arange(N) % V
    loss = summed_cross_entropy(functional.embedding(ids, weight), targets, Head(weight, None, 1.0, 0.0))
    expected = functional.cross_entropy(weight[ids] @ weight.T, targets, reduction="sum")
    ours, theirs = (torch.autograd.grad(each, weight)[0] for each in (loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_validating_computes_no_gradient_of_a_trained_head(monkeypatch):
    hidden, weight, bias, targets = drawn()
    monkeypatch.setattr(losses, "_gradient", lambda *given: pytest.fail("computed a gradient nobody asked for"))
    with torch.no_grad():
        summed_cross_entropy(hidden, targets, Head(weight, bias, 1.0, 0.0))


def test_no_trained_token_is_no_loss():
    hidden = torch.zeros(0, 6, requires_grad=True)
    loss = summed_cross_entropy(hidden, torch.zeros(0, dtype=torch.long), Head(torch.ones(11, 6), None, 1.0, 0.0))
    loss.backward()
    assert loss.item() == 0
