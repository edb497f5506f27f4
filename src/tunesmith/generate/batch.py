"""Continuous batching: each step packs one token of every decoding row and parts of new prompts into one forward pass.

Rows join when there is a free place and leave when they are finished, between any two steps. Slots stay dense: rows
that decode come first, then at most one whose prompt is not through yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tunesmith.data.tokens import Tokenizer
from tunesmith.generate.adapters import AdaptedLinears
from tunesmith.generate.attention import Prefill, Step
from tunesmith.generate.cache import KeyValues
from tunesmith.generate.request import Finish, Piece, Request
from tunesmith.generate.sampling import choose
from tunesmith.generate.text import StopStrings, TextStream

PREFILL_TOKENS = 512
"""Prompt tokens per step at most: a long prompt delays those who decode by one such pass at a time."""
ROOM_TO_GROW = 64
"""Positions that must be free in each row before another row joins, so that it is not put back at once."""


@dataclass(eq=False, slots=True)
class Row:
    """A request in the batch or on its way there."""

    request: Request
    ids: list[int]
    """The prompt and what was chosen so far."""
    text: TextStream
    stops: StopStrings
    computed: int = 0
    """Tokens whose keys and values are in the cache."""

    @property
    def decodes(self) -> bool:
        """Only its last token is new to the cache."""
        return 0 < self.computed == len(self.ids) - 1


class Batch:
    """The rows that run, and those that wait."""

    def __init__(
        self, model: nn.Module, linears: AdaptedLinears, tokenizer: Tokenizer, cache: KeyValues, most_rows: int
    ) -> None:
        self._model = model
        self._linears = linears
        self._tokenizer = tokenizer
        self._cache = cache
        self._most_rows = most_rows
        self._device = next(model.parameters()).device
        self._rows: list[Row] = []
        self._waiting: deque[Row] = deque()

    def add(self, request: Request) -> None:
        """Let it join as soon as there is a place."""
        text, stops = TextStream(self._tokenizer.decode), StopStrings(request.stops)
        self._waiting.append(Row(request, list(request.prompt), text, stops))

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self._rows and not self._waiting

    def step(self) -> None:
        """Choose one token for each row that is through with its prompt; everything that ends leaves."""
        self._drop_cancelled()
        prefills = self._plan()
        if self._rows:
            self._run(prefills)
        if self.idle:
            self._cache.clear()

    def fail(self, error: str) -> None:
        """End everything that runs or waits."""
        for row in (*self._rows, *self._waiting):
            if not row.request.cancelled:
                row.request.emit(Piece((), "", "failed", error))
        self._rows.clear()
        self._waiting.clear()
        self._cache.clear()

    def _drop_cancelled(self) -> None:
        for slot in reversed(range(len(self._rows))):
            if self._rows[slot].request.cancelled:
                if not self._rows[slot].decodes:
                    self._cache.wipe(slot)  # nobody has looked at what it computed yet
                self._remove(slot)
        self._waiting = deque(row for row in self._waiting if not row.request.cancelled)

    def _plan(self) -> list[Prefill]:
        """Make room for the step's tokens, let rows join, and say which prompt parts are computed."""
        while self._rows and not self._cache.reserve(len(self._rows), self._longest()):
            # The youngest goes back to the queue and is computed again later; its text so far stands.
            row = self._rows.pop()
            row.computed = 0
            self._waiting.appendleft(row)
        parts: list[Prefill] = []
        left = PREFILL_TOKENS
        if self._rows and not self._rows[-1].decodes:
            parts.append(self._part(len(self._rows) - 1, left))
            left -= parts[-1].end - parts[-1].start
        while self._waiting and left and len(self._rows) < self._most_rows:
            longest = max(self._longest(), len(self._waiting[0].ids))
            if not self._cache.reserve(len(self._rows) + 1, longest + ROOM_TO_GROW if self._rows else longest):
                break
            self._rows.append(self._waiting.popleft())
            parts.append(self._part(len(self._rows) - 1, left))
            left -= parts[-1].end - parts[-1].start
        return parts

    def _longest(self) -> int:
        return max((len(row.ids) for row in self._rows), default=0)

    def _part(self, slot: int, most: int) -> Prefill:
        row = self._rows[slot]
        return Prefill(slot, row.computed, min(len(row.ids), row.computed + most))

    def _run(self, parts: list[Prefill]) -> None:
        decoding = self._rows[: len(self._rows) - len(parts)]
        prefilling = self._rows[len(decoding) :]
        step = Step(self._cache, [len(row.ids) for row in decoding], parts, self._device)
        tokens = [row.ids[-1] for row in decoding]
        ready, last = list(decoding), list(range(len(decoding)))
        for row, part in zip(prefilling, parts, strict=True):
            tokens.extend(row.ids[part.start : part.end])
            if part.end == len(row.ids):
                ready.append(row)
                last.append(len(tokens) - 1)
        self._linears.begin(
            [row.request.adapter for row in decoding],
            [(part.end - part.start, row.request.adapter) for row, part in zip(prefilling, parts, strict=True)],
        )
        logits_BV = forward(self._model, step, tokens, last)
        for row in decoding:
            row.computed += 1
        for row, part in zip(prefilling, parts, strict=True):
            row.computed = part.end
        chosen = choose(logits_BV, [row.request.sampling for row in ready], [len(row.ids) for row in ready])
        ended = {row: token for row, token in zip(ready, chosen, strict=True) if self._advance(row, token)}
        for slot in reversed(range(len(self._rows))):
            if self._rows[slot] in ended:
                if ended[self._rows[slot]] is None:
                    self._cache.wipe(slot)
                self._remove(slot)

    def _advance(self, row: Row, token: int | None) -> bool:
        """Add the token to its row and tell what became of it; True if the row has ended."""
        request = row.request
        if token is None:
            request.emit(Piece((), "", "failed", "the model's logits are not finite numbers"))
            return True
        row.ids.append(token)
        ends = token in self._tokenizer.end_ids and not request.ignore_end
        text, stopped = ("", False) if ends else row.stops.push(row.text.push(token))
        finish: Finish | None = None
        if ends or stopped:
            finish = "stop"
        elif len(row.ids) - len(request.prompt) >= request.most_tokens:
            finish = "length"
        if finish and not stopped:
            rest, stopped = row.stops.push(row.text.finish())
            text += rest if stopped else rest + row.stops.finish()
            finish = "stop" if stopped else finish
        request.emit(Piece((token,), text, finish))
        return finish is not None

    def _remove(self, slot: int) -> None:
        """Take a row out and close the gap; the row whose prompt is under way stays last."""
        tail = len(self._rows) - 1
        if slot < tail and not self._rows[tail].decodes:
            if slot < tail - 1:
                self._move(tail - 1, slot)
            slot = tail - 1
        if slot < tail:
            self._move(tail, slot)
        self._rows.pop()

    def _move(self, source: int, target: int) -> None:
        self._cache.move(source, target, self._rows[source].computed)
        self._rows[target] = self._rows[source]


def forward(model: nn.Module, step: Step, tokens: Sequence[int], last: Sequence[int]) -> torch.Tensor:
    """Logits [len(last), V] at the packed places `last`. The head runs nowhere else."""
    if not last:
        last = [0]  # transformers' head must run somewhere; one place is the least
    device = step.device
    output = model(
        input_ids=torch.tensor([tokens], device=device),
        position_ids=step.positions()[None],
        use_cache=False,
        logits_to_keep=torch.tensor(last, device=device),
        step=step,
    )
    return output.logits[0]
