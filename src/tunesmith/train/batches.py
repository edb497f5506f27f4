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
import numpy.typing as npt
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
    def flat(self) -> bool:
        """Whether its rows lie one behind the other instead of below each other."""
        return self.bounds is not None

    @property
    def padding(self) -> int:
        """Tokens that go through the model and stand for nothing."""
        return self.ids_BT.numel() - sum(self.lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How rows are laid into passes."""

    tokens_per_pass: int
    """Most tokens of a pass, padding included, unless a single row has more."""
    device: torch.device
    flat: bool
    longest_shared: int | None = None
    """Tokens of the longest row that may share a pass; None = any may."""
    hands: int = 1
    """Threads that share a pass."""

    def passes(self, rows: Rows, chosen: Sequence[int]) -> Iterator[list[Pass]]:
        """The chosen rows in passes, each in as many parts as there are hands and rows."""
        sharing: list[int] = []
        for row in map(int, chosen):
            if self.longest_shared is not None and rows.lengths[row] > self.longest_shared:
                yield [self.in_one(rows, [row])]
            else:
                sharing.append(row)
        lengths = [int(rows.lengths[row]) for row in sharing]
        for group in (best_fit if self.flat else cut)(lengths, self.tokens_per_pass):
            yield [self.in_one(rows, [sharing[place] for place in hand]) for hand in deal(lengths, group, self.hands)]

    def in_one(self, rows: Rows, chosen: Sequence[int]) -> Pass:
        """These rows as one pass, in this order, whatever its size."""
        lengths = tuple(int(rows.lengths[row]) for row in chosen)
        shape = (1, sum(lengths)) if self.flat else (len(chosen), max(lengths))
        starts = np.cumsum((0, *lengths[:-1])) if self.flat else np.arange(len(chosen)) * max(lengths)
        ids_F, mask_F = np.full(shape, PADDING_ID, np.int64).ravel(), np.zeros(shape, bool).ravel()
        for row, start, length in zip(chosen, starts, lengths, strict=True):
            ids_F[start : start + length] = rows.ids(row)
            mask_F[start : start + length] = rows.mask(row)
        mask_F[starts] = False
        trained_N = np.flatnonzero(mask_F)
        given = (torch.from_numpy(a) for a in (ids_F, trained_N - 1, ids_F[trained_N]))
        # Not waited for: what lies in pageable memory CUDA takes over before it returns.
        ids, places, targets = (each.to(self.device, non_blocking=True) for each in given)
        bounds = bounds_of(lengths) if self.flat else None
        return Pass(ids.view(shape), places, targets, tuple(chosen), lengths, bounds)

    def longest(self, lengths: npt.NDArray[np.int64], most_rows: int) -> list[int]:
        """The rows of the pass with the most tokens that a step of so many rows could have, the longest row first."""
        order = np.argsort(-lengths, kind="stable")
        longest = int(order[0])
        sharing = order if self.longest_shared is None else order[lengths[order] <= self.longest_shared]
        if not len(sharing):
            return [longest]
        places = (_fill if self.flat else _cut)(lengths[sharing], self.tokens_per_pass, most_rows)
        chosen = [int(sharing[place]) for place in places]
        tokens = int(lengths[chosen].sum() if self.flat else len(chosen) * lengths[chosen[0]])
        return chosen if tokens >= lengths[longest] else [longest]


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


def _fill(falling: npt.NDArray[np.int64], tokens_per_pass: int, most_rows: int) -> list[int]:
    """Places of rows for one flat pass: the longest, then each time the longest that still fits."""
    chosen, place, room = [0], 1, tokens_per_pass - int(falling[0])
    while len(chosen) < most_rows:
        place = max(place, int(np.searchsorted(-falling, -room)))
        if place >= len(falling):
            break
        chosen.append(place)
        room -= int(falling[place])
        place += 1
    return chosen


def _cut(falling: npt.NDArray[np.int64], tokens_per_pass: int, most_rows: int) -> list[int]:
    """Places of the neighbours that make the largest padded pass."""
    counts = np.clip(tokens_per_pass // falling, 1, most_rows)
    counts = np.minimum(counts, len(falling) - np.arange(len(falling)))
    first = int(np.argmax(counts * falling))
    return list(range(first, first + int(counts[first])))
