"""The rows of one optimizer step as passes: groups of rows that go through the model together.

A flat pass is one sequence of whole rows, one behind the other, without padding; attention keeps them apart by
`bounds`. A padded pass, for models that carry a state from token to token, is a batch of rows of similar length.
Losses and gradients are sums over rows, so how a step is cut changes memory and speed, never the numbers beyond
rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tunesmith.data.packs import best_fit
from tunesmith.data.store import Rows
from tunesmith.model.attention import bounds_of

PADDING_ID = 0
"""Any id would do: no real token attends to what stands to its right, and no loss is taken there."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Rows that go through the model together: a pass, or one thread's part of it. N counts the trained tokens."""

    ids_BT: Tensor
    """B = 1 in a flat pass, else one row each, padded on the right."""
    places_N: Tensor
    """Where in the flattened [B * T] a trained token is predicted: the place before it."""
    targets_N: Tensor
    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    """Real tokens of each row."""
    bounds: Tensor | None
    """Of a flat pass, as `tunesmith.model.attention.bounds_of` makes them; None = padded."""

    @property
    def padding(self) -> int:
        """Tokens that go through the model and stand for nothing."""
        return self.ids_BT.numel() - sum(self.lengths)


def passes(
    rows: Rows,
    chosen: Sequence[int],
    tokens_per_pass: int,
    device: torch.device,
    hands: int = 1,
    *,
    flat: bool,
    longest_shared: int | None = None,
) -> Iterator[list[Pass]]:
    """The chosen rows in passes that fit the budget, each pass in as many parts as there are hands and rows.

    A row of more than `longest_shared` tokens is a pass of its own; None = any row may share one.
    """
    sharing: list[int] = []
    for row in map(int, chosen):
        if longest_shared is not None and rows.lengths[row] > longest_shared:
            yield [_pass(rows, [row], device, flat)]
        else:
            sharing.append(row)
    lengths = [int(rows.lengths[row]) for row in sharing]
    for group in (best_fit if flat else cut)(lengths, tokens_per_pass):
        yield [_pass(rows, [sharing[place] for place in hand], device, flat) for hand in deal(lengths, group, hands)]


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


def _pass(rows: Rows, chosen: list[int], device: torch.device, flat: bool) -> Pass:
    lengths = tuple(int(rows.lengths[row]) for row in chosen)
    shape = (1, sum(lengths)) if flat else (len(chosen), max(lengths))
    starts = np.cumsum((0, *lengths[:-1])) if flat else np.arange(len(chosen)) * max(lengths)
    ids_F, mask_F = np.full(shape, PADDING_ID, np.int64).ravel(), np.zeros(shape, bool).ravel()
    for row, start, length in zip(chosen, starts, lengths, strict=True):
        ids_F[start : start + length] = rows.ids(row)
        mask_F[start : start + length] = rows.mask(row)
    mask_F[starts] = False
    trained_N = np.flatnonzero(mask_F)
    ids, places, targets = (torch.from_numpy(a).to(device) for a in (ids_F, trained_N - 1, ids_F[trained_N]))
    return Pass(ids.view(shape), places, targets, tuple(chosen), lengths, bounds_of(lengths) if flat else None)
