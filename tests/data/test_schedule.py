"""Which rows a step holds and after which steps a validation runs."""

from __future__ import annotations

import pytest

from tunesmith.data.schedule import (
    epoch_of,
    permutation,
    rows_of_step,
    steps_of,
    steps_per_epoch,
    total_steps,
    validation_steps,
)
from tunesmith.errors import EngineError
from tunesmith.handoff.plan import AtTheEnd, EachEpoch, Epochs, EverySteps, FirstOf, FractionOfEpoch


def test_each_epoch_covers_all_rows_in_another_order():
    orders = []
    for epoch in range(3):
        steps = range(epoch * 4 + 1, epoch * 4 + 5)
        orders.append([int(row) for step in steps for row in rows_of_step(step, 10, 3, seed=1)])
        assert len(rows_of_step(steps[-1], 10, 3, seed=1)) == 1
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def split_mix(state: int) -> int:
    """SplitMix64 in plain integers: the first output of a generator with this state."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


@pytest.mark.parametrize(("seed", "epoch"), [(1111, 0), (0, 3), (2**63, -1)])
def test_the_order_is_by_a_hash_that_no_library_can_change(seed, epoch):
    key = split_mix((split_mix(seed) + epoch) % 2**64)
    expected = sorted(range(40), key=lambda row: split_mix(split_mix(row) ^ key))
    assert permutation(40, seed, epoch).tolist() == expected
    assert split_mix(0) == 0xE220A8397B1DCDAF  # the published first output for state 0


def test_seeds_give_different_orders():
    assert permutation(50, 1, 0).tolist() != permutation(50, 2, 0).tolist()


def test_steps_are_counted():
    assert [steps_per_epoch(rows, 4) for rows in (1, 4, 5)] == [1, 1, 2]
    assert total_steps(Epochs(epochs=3), 5) == 15
    assert total_steps(FirstOf(epochs=3, steps=7), 5) == 7
    assert total_steps(FirstOf(epochs=1, steps=7), 5) == 5
    assert [epoch_of(step, 5) for step in (1, 5, 6)] == [1, 1, 2]


@pytest.mark.parametrize("stop", [Epochs(epochs=10**9), FirstOf(epochs=10**9, steps=10**9)])
def test_more_steps_than_anybody_can_wait_for_are_refused(stop):
    with pytest.raises(EngineError, match=r"makes \d,000,000,000 steps, and a run has at most 10,000,000; lower it"):
        total_steps(stop, 5)


@pytest.mark.parametrize(
    ("cadence", "expected"),
    [
        (EachEpoch(), (10, 20, 25)),
        (EverySteps(steps=8), (8, 16, 24, 25)),
        (EverySteps(steps=100), (25,)),
        (FractionOfEpoch(fraction=0.5), (5, 10, 15, 20, 25)),
        (FractionOfEpoch(fraction=0.33), (3, 7, 10, 13, 16, 20, 23, 25)),
        (FractionOfEpoch(fraction=0.001), tuple(range(1, 26))),
        (FractionOfEpoch(fraction=1e-300), tuple(range(1, 26))),
        (AtTheEnd(), (25,)),
    ],
)
def test_validations_follow_the_cadence_and_end_with_the_last_step(cadence, expected):
    assert validation_steps(cadence, 10, 25) == expected


@pytest.mark.parametrize(
    ("cadence", "expected"),
    [(EachEpoch(), (10, 20)), (EverySteps(steps=8), (8, 16, 24)), (EverySteps(steps=100), ()), (None, ())],
)
def test_checkpoints_that_are_asked_for_follow_their_cadence_alone(cadence, expected):
    assert steps_of(cadence, 10, 25) == expected
