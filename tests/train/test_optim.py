"""Learning rates by hand, and steps equal to torch's own optimizers on separate parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.plans import PARTS
from tunesmith.train.optim import Optimizer, learning_rate


def part(**changes):
    return PARTS["optimizer"].model_copy(update={"learning_rate": 1.0, "min_learning_rate": 0.2, **changes})


@pytest.mark.parametrize(
    ("decay", "warmup", "expected"),
    [
        ("constant", 2, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", 2, [0.5, 1.0, 1.0, 0.8, 0.6, 0.4]),
        ("cosine", 2, [0.5, 1.0, 1.0, 0.882843, 0.6, 0.317157]),
        ("linear", 0, [1.0, 0.866667, 0.733333, 0.6, 0.466667, 0.333333]),
        ("cosine", 12, [1 / 12, 2 / 12, 3 / 12, 4 / 12, 5 / 12, 6 / 12]),
    ],
)
def test_learning_rates(decay, warmup, expected):
    rates = [learning_rate(part(decay=decay, warmup_steps=warmup), step, 6) for step in range(1, 7)]
    assert rates == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("max_norm", [0.05, 100.0])
def test_steps_equal_torchs_optimizer_with_mean_gradients_and_clipping(name, max_norm):
    shapes = [(3, 4), (5,), (2, 2, 2)]
    draw = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=draw) for shape in shapes]
    given = part(name=name, decay="constant", warmup_steps=0, learning_rate=0.05, weight_decay=0.3)
    given = given.model_copy(update={"max_grad_norm": max_norm})
    ours = [nn.Parameter(value.clone()) for value in start]
    theirs = [nn.Parameter(value.clone()) for value in start]
    optimizer = Optimizer(ours, given, steps=4)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    reference = kind(theirs, lr=0.05, betas=(0.9, 0.999), eps=1e-5, weight_decay=0.3, foreach=False)
    for step in range(1, 5):
        gradients = [torch.randn(mine.shape, generator=draw) for mine in ours]
        for times in (3, 4):
            optimizer.add([gradient * times for gradient in gradients])
        for other, gradient in zip(theirs, gradients, strict=True):
            other.grad = gradient.clone()
        norm = optimizer.step(step, trained_tokens=7)[1]
        expected = nn.utils.clip_grad_norm_(theirs, max_norm)
        reference.step()
        assert norm == pytest.approx(float(expected), rel=1e-5)
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_a_gradient_that_is_not_a_number_changes_nothing():
    weight = nn.Parameter(torch.ones(3))
    optimizer = Optimizer([weight], part(), steps=1)
    optimizer.add([torch.tensor([torch.nan, 1.0, 1.0])])
    optimizer.step(1, 1)
    assert torch.equal(weight, torch.ones(3))


def test_the_gradient_of_a_loss_is_handed_over_and_not_added_by_itself():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = Optimizer([weight], part(), steps=1)
    (gradient,) = optimizer.gradient((weight * weight).sum())
    assert gradient.tolist() == [2.0, 4.0]
    assert not optimizer.flat.grad.any()
