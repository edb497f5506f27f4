"""What is rounded by chance is right on average, and a number that the narrower type has stays."""

from __future__ import annotations

import pytest
import torch

from tunesmith.model import rounding
from tunesmith.model.rounding import round_by_chance

NARROW = [torch.bfloat16, torch.float16]


def rounded(exact, dtype, seed=0):
    into = torch.empty(exact.shape, dtype=dtype)
    round_by_chance(exact, into, torch.Generator().manual_seed(seed))
    return into


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("number", [1.0 + 1 / 2048 + 1 / 8192, -3.0001, 0.0123, 1e-3])
def test_the_mean_is_the_number_and_each_is_one_of_its_two_neighbours(dtype, number):
    exact, count = torch.full((200_000,), number), 200_000
    found = rounded(exact, dtype).double()
    values = found.unique()
    assert len(values) <= 2
    apart = float(values.max() - values.min())
    assert apart <= abs(number) * 2.0 ** {torch.bfloat16: -7, torch.float16: -10}[dtype]
    assert float(found.mean()) == pytest.approx(float(exact[0]), abs=6 * apart / count**0.5)


@pytest.mark.parametrize("dtype", NARROW)
def test_what_the_type_has_stays(dtype):
    exact = torch.tensor([0.0, -0.0, 1.0, -2.5, 0.15625, 448.0, torch.inf, -torch.inf]).to(dtype).float()
    for seed in range(20):
        assert torch.equal(rounded(exact, dtype, seed).float(), exact)


def test_the_same_draw_gives_the_same_bits_and_another_one_others():
    exact = torch.randn(37, 11, generator=torch.Generator().manual_seed(1))
    first = rounded(exact, torch.bfloat16)
    assert torch.equal(first, rounded(exact, torch.bfloat16))
    assert not torch.equal(first, rounded(exact, torch.bfloat16, seed=1))
    assert not torch.equal(first, exact.bfloat16())


def test_many_numbers_are_rounded_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(rounding, "CHUNK", 8)
    exact = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    apart = (rounded(exact, torch.bfloat16).float() - exact).abs() / exact.abs()
    assert 0 < float(apart.max()) <= 2.0**-7


def test_a_type_that_is_not_narrower_takes_the_numbers_as_they_are():
    exact = torch.randn(9)
    assert torch.equal(rounded(exact, torch.float32), exact)
    assert torch.equal(rounded(exact, torch.float64), exact.double())
