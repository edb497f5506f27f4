"""The rows of one optimizer step as passes: groups of rows that go through the model together.

Rows are sorted by length and cut so that a pass, padded on the right, fits the token budget. Losses and gradients are
sums over rows, so how a step is cut changes memory and speed, never the numbers beyond rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tunesmith.data.store import Rows

PADDING_ID = 0
"""Any id would do: no real token attends to what stands to its right, and no loss is taken there."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Rows that go through the model together: a pass, or one thread's part of it. N counts the trained tokens."""

    ids_BT: Tensor
    places_N: Tensor
    """Where in the flattened [B * T] a trained token is predicted: the place before it."""
    targets_N: Tensor
    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    """Real tokens of each row."""


def cut(lengths: Sequence[int], tokens_per_pass: int) -> list[list[int]]:
    """Places in `lengths`, longest first, cut into groups of at most `tokens_per_pass` padded tokens, or one row."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= tokens_per_pass:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def deal(lengths: Sequence[int], group: Sequence[int], hands: int) -> list[list[int]]:
    """A group, longest first, dealt to at most `hands` so that each has about as many tokens; none goes empty."""
    dealt: list[list[int]] = [[] for _ in range(min(hands, len(group)))]
    for place in group:
        min(dealt, key=lambda hand: sum(lengths[mine] for mine in hand)).append(place)
    return dealt


def passes(
    rows: Rows, chosen: Sequence[int], tokens_per_pass: int, device: torch.device, hands: int = 1
) -> Iterator[list[Pass]]:
    """The chosen rows in passes that fit the budget, each pass in as many parts as there are hands and rows."""
    lengths = [int(rows.lengths[row]) for row in chosen]
    for group in cut(lengths, tokens_per_pass):
        yield [_pass(rows, [int(chosen[place]) for place in hand], device) for hand in deal(lengths, group, hands)]


def _pass(rows: Rows, chosen: list[int], device: torch.device) -> Pass:
    lengths = tuple(int(rows.lengths[row]) for row in chosen)
    ids_BT = np.full((len(chosen), max(lengths)), PADDING_ID, np.int64)
    mask_BT = np.zeros(ids_BT.shape, bool)
    for place, row in enumerate(chosen):
        ids_BT[place, : lengths[place]] = rows.ids(row)
        mask_BT[place, : lengths[place]] = rows.mask(row)
    mask_BT[:, 0] = False
    trained_N = np.flatnonzero(mask_BT)
    ids, places, targets = (torch.from_numpy(a).to(device) for a in (ids_BT, trained_N - 1, ids_BT.ravel()[trained_N]))
    return Pass(ids, places, targets, tuple(chosen), lengths)
