"""A crew of threads that share a pass: each takes some of its rows through the model, forward and backward.

On a processor this beats splitting every product over the threads. Those meet after each of a thousand small products
and either spin while they wait or sleep and take long to wake; rows meet once a pass. Two cores, a 135M Llama in bf16,
rows of 95 tokens, tokens/s alone and two jobs at once: 4 rows a step spinning 560 and 36 each, sleeping 336 and 377
each, a crew 519 and 292 each; 8 rows a step, a crew 717 against one thread's 491.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from tunesmith.train.batches import Pass

Done = TypeVar("Done")

TOKENS_WORTH_A_THREAD = 512
"""Of one part: below, a second thread inside each product costs more than it brings (one row of 95 tokens: 226 tokens/s
on one thread, 105 on two)."""


class Crew:
    """At most `size` threads; a crew of one is the caller itself."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="crew") if size > 1 else None
        self._mine = threading.local()

    def share(self, work: Callable[[Pass], Done], parts: Sequence[Pass]) -> list[Done]:
        """`work` of each part, in the order of the parts, whoever did it. The first error is raised."""
        if self._pool is None:
            return [work(part) for part in parts]
        spare = self.size // len(parts)

        def one(part: Pass) -> Done:
            threads = max(1, min(spare, sum(part.lengths) // TOKENS_WORTH_A_THREAD))
            if getattr(self._mine, "threads", None) != threads:
                torch.set_num_threads(threads)  # of this thread alone
                self._mine.threads = threads
            return work(part)

        return list(self._pool.map(one, parts))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
