"""Sampling draws from the distribution that its settings describe, written out here a second time."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from tunesmith.generate import sampling
from tunesmith.generate.sampling import Sampling, choose, draw, uniform

DRAWS = 4000


def described(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """The distribution in plain Python: temperature, then top-k, then top-p, renormalised."""
    weights = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    order = sorted(range(len(logits)), key=lambda token: -weights[token])
    order = order[: top_k or len(order)]
    total, running, kept = sum(weights[token] for token in order), 0.0, []
    for token in order:
        kept.append(token)
        running += weights[token] / total
        if running >= top_p:
            break
    mass = sum(weights[token] for token in kept)
    return [weights[token] / mass if token in kept else 0.0 for token in range(len(logits))]


SETTINGS = [
    (1.0, 0, 1.0),
    (0.5, 0, 1.0),
    (1.7, 5, 1.0),
    (1.0, 0, 0.8),
    (0.8, 6, 0.7),
    (1.0, 1, 1.0),
    (1.0, 0, 0.01),
    (2.0, 99, 1.0),
]


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), SETTINGS)
@pytest.mark.parametrize("guess", [4, 1024])
def test_tokens_come_as_often_as_described(
    temperature: float, top_k: int, top_p: float, guess: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "NUCLEUS_GUESS", guess)
    logits = [2.0, -1.0, 0.5, 1.9, 0.0, -3.0, 1.0, 0.7, -0.2, 0.1]
    settings = Sampling(temperature, top_p, top_k)
    # Evenly spaced noise: each token must be hit in proportion, to one draw.
    drawn = Counter(draw(torch.tensor(logits), settings, (number + 0.5) / DRAWS) for number in range(DRAWS))
    for token, probability in enumerate(described(logits, temperature, top_k, top_p)):
        assert abs(drawn[token] - probability * DRAWS) <= 1.01


def test_noise_is_even_and_depends_on_seed_and_position_alone() -> None:
    values = [uniform(seed, position) for seed in range(20) for position in range(100)]
    assert all(0 <= value < 1 for value in values)
    assert len(set(values)) == len(values)
    in_tenths = Counter(int(value * 10) for value in values)
    assert all(abs(in_tenths[tenth] - 200) < 70 for tenth in range(10))
    assert uniform(3, 7) == values[307]


def test_temperature_zero_is_greedy_and_a_tiny_one_nearly() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.9], [5.0, -1.0, 4.0]])
    assert choose(logits, [Sampling(0), Sampling(1e-9, seed=4)], [1, 2]) == [1, 0]


def test_logits_that_are_not_numbers_give_no_token() -> None:
    logits = torch.tensor([[0.0, math.nan], [1.0, 2.0]])
    assert choose(logits, [Sampling(1), Sampling(0)], [0, 0]) == [None, 1]
