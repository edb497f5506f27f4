"""What is random while a model learns, drawn from keys and never from a running generator.

Dropout is drawn from (seed, step, row, module), the noise on embeddings from (seed, step, row): neither depends on what
was drawn before, nor on how a step's rows were cut into passes, so a run that is taken up again draws the same.

Shapes: B batch rows, T tokens, t those of one row, X features.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Key = tuple[int, Sequence[int], Sequence[int], bool]


class Noise(threading.local):
    """The key that draws are made from: one object for all of a model, with a key of its own per thread."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.step = 0
        self.rows: Sequence[int] = ()
        """Which rows lie in the pass, in the order of the batch."""
        self.lengths: Sequence[int] = ()
        """Real tokens of each of them; what is drawn does not depend on padding."""
        self.flat = False
        """Whether the rows lie one behind the other in a batch of one."""

    @property
    def key(self) -> Key:
        """What this thread's draws are made from, beside the seed."""
        return self.step, self.rows, self.lengths, self.flat

    @key.setter
    def key(self, key: Key) -> None:
        self.step, self.rows, self.lengths, self.flat = key

    @contextmanager
    def at(self, key: Key) -> Iterator[None]:
        """Draw from `key` in this thread meanwhile."""
        before, self.key = self.key, key
        try:
            yield
        finally:
            self.key = before

    def kept(self, x_BTX: Tensor, dropout: float, what: str) -> Tensor:
        """1 / (1 - dropout) where an element of the module `what` is kept, 0 where it is dropped; 0 on padding."""
        factor_BTX, keep = x_BTX.new_zeros(x_BTX.shape), 1 - dropout
        for row_tX, generator in self._rows_of(factor_BTX, what):
            drawn_tX = torch.rand(row_tX.shape, generator=generator, device=row_tX.device)
            row_tX.copy_((drawn_tX < keep).to(row_tX.dtype) / keep)
        return factor_BTX

    def shift(self, x_BTX: Tensor, alpha: float) -> Tensor:
        """Uniform in +-alpha / sqrt(t X) on each row of t real tokens, 0 on padding."""
        shift_BTX = x_BTX.new_zeros(x_BTX.shape)
        for row_tX, generator in self._rows_of(shift_BTX, "embeddings"):
            bound = alpha / math.sqrt(row_tX.numel())
            row_tX.copy_(torch.rand(row_tX.shape, generator=generator, device=row_tX.device) * 2 * bound - bound)
        return shift_BTX

    def _rows_of(self, x_BTX: Tensor, what: str) -> Iterator[tuple[Tensor, torch.Generator]]:
        """Each row's real tokens in `x_BTX`, a view, with the generator of what is drawn for them."""
        rows_BTX = x_BTX.view(
            1 if self.flat else len(self.rows) or 1, -1, x_BTX.shape[-1]
        )  # some modules get [B * T, X]
        tokens = rows_BTX.shape[1]
        matches = sum(self.lengths) == tokens if self.flat else max(self.lengths, default=tokens + 1) <= tokens
        assert matches, "the noise key was not set for this pass"
        places = rows_BTX[0].split(list(self.lengths)) if self.flat else rows_BTX
        for place, row, length in zip(places, self.rows, self.lengths, strict=True):
            yield place[:length], generator_of(self.seed, f"{self.step}/{row}/{what}", x_BTX.device)


def generator_of(seed: int, key: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that `seed` and `key` say everything about."""
    digest = hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def disturb_embeddings(model: nn.Module, alpha: float, noise: Noise, learning: Callable[[], bool]) -> None:
    """NEFTune (Jain et al., 2023) on a transformers model: input embeddings are shifted at random while `learning()`.

    By uniform noise in +-alpha / sqrt(tokens x hidden), with the row's own count of tokens.
    """

    def shifted(_module: nn.Module, _given: Any, embedded_BTH: Tensor) -> Tensor:
        return embedded_BTH + noise.shift(embedded_BTH, alpha) if learning() else embedded_BTH

    model.get_input_embeddings().register_forward_hook(shifted)
