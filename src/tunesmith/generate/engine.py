"""A model in memory that answers many requests at once: one thread owns it, everybody else leaves messages.

No HTTP and no event loop in here. What a request yields is handed to its `emit` on the engine's thread.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import torch
from torch import nn

from tunesmith.data.tokens import Tokenizer
from tunesmith.errors import EngineError, Invalid
from tunesmith.generate import attention
from tunesmith.generate.adapters import AdaptedLinears, Adapter
from tunesmith.generate.attention import Prefill, Step
from tunesmith.generate.batch import Batch, forward
from tunesmith.generate.cache import SHARE_OF_FREE_MEMORY, KeyValues, LayerShape, free_bytes, position_bytes
from tunesmith.generate.packed import pack_linears
from tunesmith.generate.request import Request
from tunesmith.handoff.base import Compute
from tunesmith.model.peft_files import AdapterWeights
from tunesmith.model.sharing import length_dependent_rope

log = logging.getLogger(__name__)

T = TypeVar("T")

BYTES_WORTH_A_THREAD = 400 << 20
"""Of weights. A 269 MB model on two cores, one thread against two: 21 against 13 tokens/s at one request, 164 against
102 at sixteen."""


class Engine:
    """Owns the model from here on; `close` ends its thread."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, most_rows: int) -> None:
        """EngineError if the model has layers that packed attention cannot serve."""
        config = model.config
        if rope := length_dependent_rope(config):
            kind = rope["rope_type"]
            raise EngineError(f"config.json rope_parameters.rope_type ({kind}) is not built yet", "ModelLoadError")
        model.set_attn_implementation(attention.NAME)
        self._model = model
        pack_linears(model)
        self._linears = AdaptedLinears(model)
        self._device = next(model.parameters()).device
        dtype = next(model.parameters()).dtype
        self.compute: Compute = "bf16" if dtype == torch.bfloat16 else "fp32"
        shapes = self._learn_shapes(config.num_hidden_layers)
        affordable = int(free_bytes(self._device) * SHARE_OF_FREE_MEMORY) // position_bytes(shapes, dtype)
        self.context: int = min(config.max_position_embeddings, affordable)
        """Tokens that a prompt and its answer may have together."""
        self._vocabulary: int = config.vocab_size
        cache = KeyValues(shapes, dtype, self._device, affordable)
        self._batch = Batch(model, self._linears, tokenizer, cache, most_rows)
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def check(self, prompt: Sequence[int], most_tokens: int) -> None:
        """Invalid, with the numbers, if this cannot be answered."""
        if not prompt:
            raise Invalid("the prompt has no tokens")
        if len(prompt) + max(most_tokens, 1) > self.context:
            raise Invalid(
                f"the prompt has {len(prompt)} tokens and {most_tokens} are asked for; "
                f"the model's context holds {self.context} together"
            )
        if min(prompt) < 0 or max(prompt) >= self._vocabulary:
            raise Invalid(f"a prompt token is outside the vocabulary (0 to {self._vocabulary - 1})")

    def submit(self, request: Request) -> None:
        """Begin at the next step. Invalid as in `check`."""
        self.check(request.prompt, request.most_tokens)
        self._inbox.put(lambda: self._batch.add(request))

    def load(self, weights: AdapterWeights) -> Adapter:
        """The adapter, ready to be used in requests; EngineError, with nothing changed, if it does not fit."""
        adapter = self._linears.fit(weights)
        self._call(lambda: self._linears.hook(adapter)).result()
        return adapter

    def unload(self, adapter: Adapter) -> None:
        """Let go of it once no request holds it."""
        self._inbox.put(lambda: self._linears.forget(adapter))

    def log_probabilities(self, prompt: Sequence[int], adapter: Adapter | None) -> torch.Tensor:
        """[V] float32: log-probabilities of the token after `prompt`, computed between two steps."""
        self.check(prompt, 0)
        return self._call(lambda: self._score(prompt, adapter)).result()

    def close(self) -> None:
        """End the thread after its current step; whatever still runs fails."""
        self._closed = True
        self._inbox.put(None)
        self._thread.join()

    def _call(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` on the model's thread between two steps."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 - handed to the caller
                future.set_exception(error)

        self._inbox.put(run)
        return future

    def _work(self) -> None:
        torch.set_num_threads(threads(self._model))
        with torch.inference_mode():
            while not self._closed:
                self._read_inbox()
                if not self._batch.idle and not self._closed:
                    self._step()
        self._batch.fail("the server is stopping")

    def _step(self) -> None:
        try:
            self._batch.step()
        except Exception as error:  # one step failed: its requests end, the engine goes on
            log.exception("a step failed")
            self._batch.fail(f"{type(error).__name__}: {error}")

    def _read_inbox(self) -> None:
        """Take all messages; wait for one only when there is nothing to compute."""
        wait = self._batch.idle
        while True:
            try:
                message = self._inbox.get(block=wait)
            except queue.Empty:
                return
            if message is None:
                return
            message()
            wait = False

    def _score(self, prompt: Sequence[int], adapter: Adapter | None) -> torch.Tensor:
        step = Step(None, (), [Prefill(None, 0, len(prompt))], self._device)
        self._linears.begin([], [(len(prompt), adapter)])
        logits_1V = forward(self._model, step, prompt, [len(prompt) - 1])
        return logits_1V[0].float().log_softmax(-1)

    def _learn_shapes(self, layers: int) -> list[LayerShape]:
        """One short pass tells what each layer keeps, and that each of them attends through us."""
        step = Step(None, (), [Prefill(None, 0, 2)], self._device)
        with torch.inference_mode():
            forward(self._model, step, [0, 0], [1])
        if sorted(step.seen) != list(range(layers)):
            raise EngineError(
                f"{type(self._model).__name__} has {layers} layers and {len(step.seen)} of them are attention; "
                "the embedded engine serves models whose layers all are",
                "ModelLoadError",
            )
        return [step.seen[layer] for layer in range(layers)]


def threads(model: nn.Module) -> int:
    """Threads to compute with: what OMP_NUM_THREADS says, else as many as the model's size is worth.

    Threads meet after each product, and waking one up takes as long as a small product itself.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdigit() and int(said):
        return int(said)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = sum(weight.nbytes for weight in model.parameters())
    return max(1, min(allowed, size // BYTES_WORTH_A_THREAD))
