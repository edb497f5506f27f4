"""Learning rates by hand, and steps equal to torch's own optimizers on separate parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.plans import PARTS
from tunesmith.train.optim import Optimizer, learning_rate, next_scale


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


ORDER = [0, 2, 1]
"""Of the shapes below in the optimizer: what is decayed first."""


def named(weights):
    return {str(number): weight for number, weight in enumerate(weights)}


def test_a_cosine_may_start_again_and_a_warm_up_may_be_a_part_of_all_steps():
    """Two cycles over the five steps behind a warm-up of one: 0, 0.4, 0.8 of the first, 0.2, 0.6 of the second."""
    told = part(decay="cosine", warmup_steps=0, warmup_ratio=0.1, cycles=2, min_learning_rate=0.0)
    rates = [learning_rate(told, step, 6) for step in range(1, 7)]
    assert rates == pytest.approx([1.0, 1.0, 0.654508, 0.095492, 0.904508, 0.345492], abs=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("max_norm", [0.05, 100.0])
@pytest.mark.parametrize("in_place", [False, True])
def test_steps_equal_torchs_optimizer_with_mean_gradients_and_clipping(name, max_norm, in_place):
    """Weight decay spares what has one dimension."""
    shapes = [(3, 4), (5,), (2, 2, 2)]
    draw = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=draw) for shape in shapes]
    given = part(name=name, decay="constant", warmup_steps=0, learning_rate=0.05, weight_decay=0.3)
    given = given.model_copy(update={"max_grad_norm": max_norm})
    ours = [nn.Parameter(value.clone()) for value in start]
    theirs = [nn.Parameter(value.clone()) for value in start]
    optimizer = Optimizer(named(ours), given, steps=4)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    groups = [{"params": [each]} if each.dim() > 1 else {"params": [each], "weight_decay": 0.0} for each in theirs]
    reference = kind(
        groups, lr=0.05, weight_decay=0.3, **({} if name == "sgd" else {"betas": (0.9, 0.999), "eps": 1e-5})
    )
    for step in range(1, 5):
        gradients = [torch.randn(mine.shape, generator=draw) for mine in ours]
        for times in (3, 4):
            if in_place:
                optimizer.add_gradient_of(sum((w * g).sum() * times for w, g in zip(ours, gradients, strict=True)))
            else:
                optimizer.add([gradients[place] * times for place in ORDER])
        for other, gradient in zip(theirs, gradients, strict=True):
            other.grad = gradient.clone()
        norm = optimizer.step(step, divisor=7).grad_norm
        expected = nn.utils.clip_grad_norm_(theirs, max_norm)
        reference.step()
        assert norm == pytest.approx(float(expected), rel=1e-5)
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("in_place", [False, True])
def test_weights_of_another_type_follow_float32_masters(in_place):
    """Steps much smaller than a bf16 weight's last bit add up."""
    weight = nn.Parameter(torch.ones(2, 3, dtype=torch.bfloat16))
    optimizer = Optimizer({"w": weight}, part(name="sgd", decay="constant", warmup_steps=0, weight_decay=0.0), steps=64)
    for step in range(1, 65):
        loss = (weight * 2**-12).sum()
        if in_place:
            optimizer.add_gradient_of(loss)
        else:
            optimizer.add(optimizer.gradient(loss))
        optimizer.step(step, divisor=1)
    assert weight.dtype == torch.bfloat16
    assert optimizer.masters()["w"].dtype == torch.float32
    assert torch.equal(optimizer.masters()["w"], torch.full((2, 3), 1 - 2**-6))
    assert torch.equal(weight.float(), torch.full((2, 3), 1 - 2**-6))


def test_a_restored_optimizer_goes_on_bit_for_bit():
    draw = torch.Generator().manual_seed(1)
    start, gradients = torch.randn(4, 3, generator=draw), [torch.randn(4, 3, generator=draw) for _ in range(4)]

    def steps(optimizer, numbers):
        for step in numbers:
            optimizer.add([gradients[step - 1], torch.ones(3)])
            optimizer.step(step, divisor=3)
        return optimizer

    def fresh():
        weights = {"w": nn.Parameter(start.clone()), "b": nn.Parameter(torch.zeros(3))}
        return Optimizer(weights, part(decay="constant", warmup_steps=0), steps=4)

    whole, first, second = steps(fresh(), (1, 2, 3, 4)), steps(fresh(), (1, 2)), fresh()
    second.set_weights(first.masters())
    second.restore(first.state())
    assert torch.equal(steps(second, (3, 4)).flat, whole.flat)
    assert all(torch.equal(value, whole.state()[name]) for name, value in second.state().items())
    assert len(whole.state()) == 6


def test_a_gradient_that_is_not_a_number_changes_nothing():
    weight = nn.Parameter(torch.ones(3))
    optimizer = Optimizer({"w": weight}, part(), steps=1)
    optimizer.add([torch.tensor([torch.nan, 1.0, 1.0])])
    assert not optimizer.step(1, 1).applied
    assert torch.equal(weight, torch.ones(3))


def test_the_gradient_of_a_loss_is_handed_over_and_not_added_by_itself():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = Optimizer({"w": weight}, part(), steps=1)
    (gradient,) = optimizer.gradient((weight * weight).sum())
    assert gradient.tolist() == [2.0, 4.0]
    optimizer.step(1, 1)
    assert weight.tolist() == [1.0, 2.0]


def test_a_loss_scale_is_halved_by_an_overflow_and_doubled_after_many_good_steps():
    assert next_scale(1024.0, 7, applied=False) == (512.0, 0)
    assert next_scale(1024.0, 7, applied=True) == (1024.0, 8)
    assert next_scale(1024.0, 1999, applied=True) == (2048.0, 0)
