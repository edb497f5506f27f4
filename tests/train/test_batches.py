"""Rows of a step are laid out in passes that fit the budget; every row is in exactly one."""

from __future__ import annotations

import pytest

from tests.train.runs import layout
from tunesmith.data.packs import best_fit
from tunesmith.data.store import Rows
from tunesmith.handoff.prepared import Prepared
from tunesmith.train.batches import cut, deal


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([3, 9, 5, 1], 100, [[1, 2, 0, 3]]),
        ([3, 9, 5, 1], 10, [[1], [2, 0], [3]]),
        ([3, 9, 5, 1], 1, [[1], [2], [0], [3]]),
        ([4, 4, 4], 8, [[0, 1], [2]]),
    ],
)
def test_rows_are_sorted_and_cut_by_padded_tokens(lengths, budget, expected):
    assert cut(lengths, budget) == expected


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([3, 9, 5, 1], 100, [[1, 2, 0, 3]]),
        ([3, 9, 5, 1], 10, [[1, 3], [2, 0]]),
        ([12, 9, 5, 1], 10, [[0], [1, 3], [2]]),
        ([6, 7, 3, 4], 10, [[1, 2], [0, 3]]),
    ],
)
def test_rows_fill_passes_by_real_tokens_each_in_the_fullest_that_has_room(lengths, budget, expected):
    assert best_fit(lengths, budget) == expected


@pytest.mark.parametrize(
    ("lengths", "hands", "expected"),
    [
        ([9, 5, 4, 3], 2, [[0, 3], [1, 2]]),
        ([9, 5], 4, [[0], [1]]),
        ([9, 5, 4], 1, [[0, 1, 2]]),
    ],
)
def test_a_pass_is_dealt_so_that_hands_hold_about_as_many_tokens(lengths, hands, expected):
    assert deal(lengths, range(len(lengths)), hands) == expected


@pytest.mark.parametrize("flat", [True, False])
def test_dealt_parts_hold_every_row_once(make_run, flat):
    run = make_run()
    rows = Rows(run, Prepared.read(run / "data.json").training)
    found = list(layout(60, flat, hands=3).passes(rows, range(len(rows))))
    assert max(len(parts) for parts in found) > 1
    assert sorted(row for parts in found for part in parts for row in part.rows) == list(range(len(rows)))


def test_a_flat_pass_is_its_rows_one_behind_the_other(make_run):
    run = make_run()
    rows = Rows(run, Prepared.read(run / "data.json").training)
    ((one,),) = layout(10_000, flat=True).passes(rows, [4, 7, 2])
    assert one.ids_BT.tolist() == [[int(token) for row in one.rows for token in rows.ids(row)]]
    assert one.bounds.flatten().diff().tolist() == list(one.lengths) == sorted(one.lengths, reverse=True)
    assert one.padding == 0


def test_padding_is_counted(make_run):
    run = make_run()
    rows = Rows(run, Prepared.read(run / "data.json").training)
    ((one,),) = layout(10_000, flat=False).passes(rows, [4, 7, 2])
    assert one.bounds is None
    assert one.padding == sum(max(one.lengths) - length for length in one.lengths) > 0


@pytest.mark.parametrize("flat", [True, False])
def test_a_pass_holds_each_trained_token_with_the_place_that_predicts_it(make_run, flat):
    run = make_run()
    rows = Rows(run, Prepared.read(run / "data.json").training)
    found = list(layout(10_000, flat).passes(rows, [4, 7, 2]))
    assert len(found) == 1
    ((one,),) = found
    assert sorted(one.rows) == [2, 4, 7]
    expected = [
        (int(rows.ids(row)[t - 1]), int(rows.ids(row)[t]))
        for row in one.rows
        for t in range(1, len(rows.ids(row)))
        if rows.mask(row)[t]
    ]
    pairs = zip(one.ids_BT.flatten()[one.places_N].tolist(), one.targets_N.tolist(), strict=True)
    assert list(pairs) == expected
