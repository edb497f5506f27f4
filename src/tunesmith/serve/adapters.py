"""Which adapters this process serves, by name: load checks everything before anything changes, unload forgets.

An adapter's folder may hold a probe, a prompt with the log-probabilities that the trainer saw at its end. Then an
adapter answers only if the served model gives the same, so a wrong base or a wrong formula cannot go live unnoticed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tunesmith.errors import BadRequest, EngineError, NotFound, TunesmithError
from tunesmith.generate.adapters import Adapter
from tunesmith.generate.engine import Engine
from tunesmith.handoff.probe import PROBE_FILE, Probe, disagreement
from tunesmith.model.peft_files import read_adapter


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
        probe = Probe.read(path)
        logprobs_V = self._engine.log_probabilities(probe.prompt_ids, adapter)
        if not probe.top or any(not 0 <= each.token < len(logprobs_V) for each in probe.top):
            raise EngineError(f"{PROBE_FILE} names no token, or one outside the base model's vocabulary")
        served = [float(logprobs_V[each.token]) for each in probe.top]
        if why := disagreement(probe, served, self._engine.compute):
            raise EngineError(
                f"its probe does not agree: {why}. It was trained on another base model, or its files have changed"
            )
