"""Which adapters this process serves, by name: load checks everything before anything changes, unload forgets.

An adapter's folder may hold a probe, a prompt with the log-probabilities that the trainer saw at its end. Then an
adapter answers only if the served model gives the same, so a wrong base or a wrong formula cannot go live unnoticed.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunesmith.errors import BadRequest, EngineError, NotFound, TunesmithError
from tunesmith.generate.adapters import Adapter
from tunesmith.generate.engine import Engine
from tunesmith.model.peft_files import read_adapter

PROBE_FILE = "tunesmith_probe.json"
EXACT_TOLERANCE = 1e-3
"""Nats that a log-probability may differ by when trainer and server both compute in float32."""
BF16_TOLERANCE = 0.25
"""Nats that any log-probability may differ by when either of them computes in bf16."""
BF16_MEAN_TOLERANCE = 0.1
"""Nats that they may differ by on average then."""


class Probe(BaseModel):
    """What the trainer measured with the adapter it exported."""

    model_config = ConfigDict(extra="ignore")

    prompt_ids: list[int]
    compute: Literal["bf16", "fp32"]
    top: list[tuple[int, float]]
    """Token ids and their log-probabilities (nats) right after the prompt."""


@dataclass(frozen=True, slots=True)
class Served:
    """An adapter that answers."""

    adapter: Adapter
    path: str
    created: int


class Adapters:
    """The names that are served beside the base model's."""

    def __init__(self, engine: Engine, base: str) -> None:
        self._engine = engine
        self._base = base
        self._served: dict[str, Served] = {}
        self._loading = threading.Lock()

    def find(self, model: str) -> Adapter | None:
        """Whose answer a request for `model` gets: None = the base. NotFound lists what is served."""
        if model == self._base:
            return None
        if (served := self._served.get(model)) is not None:
            return served.adapter
        names = ", ".join([self._base, *self._served])
        raise NotFound(f"model `{model}` is not served here; served are: {names}")

    def listing(self) -> list[tuple[str, Served]]:
        """Names in the order in which they were loaded."""
        return list(self._served.items())

    def load(self, name: str, path: str) -> None:
        """Serve the adapter in `path` as `name`, or BadRequest with the reason and nothing changed. Blocks."""
        with self._loading:
            if name == self._base or name in self._served:
                raise BadRequest(f"`{name}` is already loaded; unload it first, or choose another lora_name")
            try:
                adapter = self._engine.load(read_adapter(Path(path)))
                self._check_probe(Path(path) / PROBE_FILE, adapter)
            except (TunesmithError, OSError) as error:
                raise BadRequest(f"cannot load `{name}` from {path}: {error}") from error
            self._served[name] = Served(adapter, path, int(time.time()))

    def unload(self, name: str) -> None:
        """Stop serving `name` to new requests; running ones finish on it. NotFound if it is not loaded."""
        served = self._served.pop(name, None)
        if served is None:
            raise NotFound(f"adapter `{name}` is not loaded; loaded are: {', '.join(self._served) or 'none'}")
        self._engine.unload(served.adapter)

    def _check_probe(self, path: Path, adapter: Adapter) -> None:
        if not path.is_file():
            return
        try:
            probe = Probe.model_validate(json.loads(path.read_bytes()))
        except (ValueError, ValidationError) as error:
            raise EngineError(f"{PROBE_FILE} cannot be read: {error}") from None
        logprobs_V = self._engine.log_probabilities(probe.prompt_ids, adapter)
        if not probe.top or any(not 0 <= token < len(logprobs_V) for token, _ in probe.top):
            raise EngineError(f"{PROBE_FILE} names no token, or one outside the base model's vocabulary")
        gaps = [abs(float(logprobs_V[token]) - expected) for token, expected in probe.top]
        exact = probe.compute == self._engine.compute == "fp32"
        most = EXACT_TOLERANCE if exact else BF16_TOLERANCE
        mean = EXACT_TOLERANCE if exact else BF16_MEAN_TOLERANCE
        # Written so that NaN is refused too.
        if not (max(gaps) <= most and sum(gaps) / len(gaps) <= mean):
            raise EngineError(
                f"its probe does not agree: log-probabilities differ by up to {max(gaps):.4f} nats "
                f"({sum(gaps) / len(gaps):.4f} on average; {most} and {mean} are allowed). "
                "It was trained on another base model, or its files have changed"
            )
