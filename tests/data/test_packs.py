"""Rows are put into full sequences, each once, and steps count sequences then."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plans import plan
from tunesmith.data import prepare as prepare_module
from tunesmith.data.order import Order
from tunesmith.data.packs import PackedRows, best_fit, pack, packs_per_step
from tunesmith.data.prepare import prepare
from tunesmith.data.schedule import permutation
from tunesmith.data.store import Rows

LIMIT = 64
SOME_LENGTHS = st.lists(st.integers(1, LIMIT), max_size=60)


def members(packed: PackedRows) -> list[list[int]]:
    return [packed.rows(number).tolist() for number in range(len(packed))]


def first_fit(lengths: list[int], limit: int) -> int:
    """How many packs first fit makes of these lengths, as they come."""
    spaces: list[int] = []
    for length in lengths:
        fits = next((number for number, space in enumerate(spaces) if space >= length), None)
        if fits is None:
            spaces.append(limit - length)
        else:
            spaces[fits] -= length
    return len(spaces)


@given(SOME_LENGTHS, st.integers(1, 70), st.integers(0, 2**64))
def test_each_row_is_in_one_pack_and_no_pack_is_too_long(lengths, window, seed):
    packs = members(pack(np.array(lengths, np.int64), LIMIT, window, seed))
    assert sorted(row for rows in packs for row in rows) == list(range(len(lengths)))
    assert all(0 < sum(lengths[row] for row in rows) <= LIMIT for rows in packs)
    assert packs == members(pack(np.array(lengths, np.int64), LIMIT, window, seed))


@given(SOME_LENGTHS, st.integers(1, 70), st.integers(0, 99))
def test_a_pack_holds_rows_of_one_window_of_the_drawn_order(lengths, window, seed):
    where = np.argsort(permutation(len(lengths), seed, 0))
    for rows in members(pack(np.array(lengths, np.int64), LIMIT, window, seed)):
        assert len({int(where[row]) // window for row in rows}) == 1


def test_the_longest_go_first_and_each_into_the_fullest_pack_that_has_room():
    assert best_fit([5, 7, 2, 3, 1, 4], 10) == [[1, 3], [0, 5, 4], [2]]


@given(st.integers(0, 2**32))
def test_skewed_rows_are_packed_at_least_as_tightly_as_by_first_fit(seed):
    lengths = np.clip(np.random.default_rng(seed).lognormal(4.9, 0.9, 300), 1, 1024).astype(np.int64)
    order = permutation(len(lengths), 7, 0)
    packs = len(pack(lengths, 1024, 1000, 7))
    assert lengths.sum() / 1024 <= packs <= first_fit(lengths[order].tolist(), 1024)


@pytest.mark.parametrize(
    ("rows_per_step", "packs", "rows", "expected"), [(8, 25, 100, 2), (8, 100, 100, 8), (8, 30, 100, 2), (1, 5, 100, 1)]
)
def test_a_step_takes_as_many_packs_as_hold_its_rows_on_average(rows_per_step, packs, rows, expected):
    assert packs_per_step(rows_per_step, packs, rows) == expected


def write_rows(put, count=50):
    put("train.jsonl", *[{"text": "x" * (1 + number * 7 % 23)} for number in range(count)])


def packed_plan():
    return plan(data={"packing": True, "sequence_limit": 40, "pack_window": 20})


def test_a_packed_run_counts_its_steps_in_packs(run, put):
    write_rows(put)
    events = []
    found = prepare(run, packed_plan(), events.append)
    assert found.packs
    assert found.packs.per_step == round(4 * found.packs.packs / 50)
    assert found.steps_per_epoch == -(-found.packs.packs // found.packs.per_step)
    assert found.steps == 2 * found.steps_per_epoch
    assert (events[-1].packs, events[-1].packs_per_step) == (found.packs.packs, found.packs.per_step)
    lengths = Rows(run, found.training).lengths
    packs = members(PackedRows.read(run, found.packs))
    assert packs == members(pack(lengths, 40, 20, 7))
    assert max(int(lengths[rows].sum()) for rows in packs) <= 40


def test_each_epoch_of_a_packed_run_covers_all_rows_in_another_order_of_packs(run, put):
    write_rows(put)
    asked = packed_plan()
    found = prepare(run, asked, [].append)
    order, epochs = Order(run, found, asked), []
    for epoch in range(2):
        steps = range(epoch * found.steps_per_epoch + 1, (epoch + 1) * found.steps_per_epoch + 1)
        epochs.append([order.rows_of_step(step).tolist() for step in steps])
    assert all(sorted(row for rows in epoch for row in rows) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    packs = members(PackedRows.read(run, found.packs))
    drawn = permutation(len(packs), 7, 1)[: found.packs.per_step]
    assert epochs[1][0] == [row for pack in drawn for row in packs[pack]]


def test_without_packing_a_step_holds_its_rows_of_the_epochs_order(run, put):
    write_rows(put)
    found = prepare(run, plan(), [].append)
    order = Order(run, found, plan())
    assert found.packs is None
    assert order.rows_of_step(2).tolist() == permutation(50, 7, 0)[4:8].tolist()
    assert order.rows_of_step(14).tolist() == permutation(50, 7, 1)[:4].tolist()


def test_packs_do_not_depend_on_how_many_rows_are_tokenised_at_a_time(run, put, monkeypatch):
    write_rows(put)
    packs = members(PackedRows.read(run, prepare(run, packed_plan(), [].append).packs))
    monkeypatch.setattr(prepare_module, "CHUNK_ROWS", 3)
    assert members(PackedRows.read(run, prepare(run, packed_plan(), [].append).packs)) == packs
