"""What the model says to a few validation rows' prompts, for whoever wants more than a loss to look at.

The most likely token each time, by transformers' own `generate`, which knows each family's cache. Nothing is drawn and
nothing is trained, so a run goes on as if nobody had asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from tunesmith.data.store import Rows
from tunesmith.data.tokens import Tokenizer
from tunesmith.handoff.events import Sample, Sampled

ASKED_ROWS, SAID_TOKENS = 3, 48
SECONDS, SHARE, LEAST_SECONDS = 5.0, 0.05, 0.3
"""For all answers of one time, and at most this share of the time since they were asked before, but the least at any
rate; what is half said then is shown as it is."""
TEXT_TOKENS = 32
"""Of a row that is trained on from its start, such as a plain text, this many at most are the prompt."""


@dataclass(frozen=True, slots=True)
class Question:
    """A validation row, as it is asked."""

    ids: tuple[int, ...]
    prompt: str
    wanted: str


class Sampler:
    """Asks a model the first rows of a split; the model is in memory, on one device, and in eval mode."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, rows: Rows, device: torch.device) -> None:
        self._model, self._tokenizer, self._device = model, tokenizer, device
        self._asked_at = -math.inf
        self._questions = [question(rows, row, tokenizer) for row in range(min(ASKED_ROWS, len(rows)))]

    def __call__(self, step: int) -> Sampled:
        """What it says after step `step`; fewer answers where time was short."""
        now, samples = time.monotonic(), list[Sample]()
        until = now + min(SECONDS, max(LEAST_SECONDS, SHARE * (now - self._asked_at)))
        for asked in self._questions:
            left = until - time.monotonic()
            if left <= 0:
                break
            with _alone():
                said = self._tokenizer.decode(self._answer(asked.ids, left))
            samples.append(Sample(prompt=asked.prompt, said=said, wanted=asked.wanted))
        self._asked_at = time.monotonic()
        return Sampled(step=step, samples=tuple(samples))

    def _answer(self, ids: Sequence[int], seconds: float) -> list[int]:
        from transformers import GenerationConfig

        ends = sorted(self._tokenizer.end_ids)
        greedy = GenerationConfig(
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            max_new_tokens=SAID_TOKENS,
            max_time=seconds,
            eos_token_id=ends,
            pad_token_id=ends[0],
            use_cache=True,
        )
        ids_1T = torch.tensor([list(ids)], device=self._device)
        said_1T = self._model.generate(
            input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T), generation_config=greedy
        )
        return [int(token) for token in said_1T[0, len(ids) :]]


@contextmanager
def _alone() -> Iterator[None]:
    """One thread of a CPU: a token at a time, a second one waits longer for its part than the part takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def question(rows: Rows, row: int, tokenizer: Tokenizer) -> Question:
    """A row up to where training begins; what it has there until training ends again is what is wanted."""
    ids, trained = rows.ids(row), rows.mask(row).astype(bool)
    start = int(trained.argmax()) if trained.any() else len(ids)
    if start <= len(tokenizer.start_ids):
        start = max(1, min(len(ids) // 2, TEXT_TOKENS))
    rest = trained[start:]
    end = start + (len(rest) if rest.all() else int(rest.argmin()))
    prompt, wanted = (tokenizer.decode([int(token) for token in part]) for part in (ids[:start], ids[start:end]))
    return Question(tuple(int(token) for token in ids[:start]), prompt, wanted)
