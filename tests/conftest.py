"""Fixtures that more than one room's tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import LiveServer, Wire, settings
from tunesmith.control import runs
from tunesmith.store.jobs import Phase


@pytest.fixture
def small_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are trained by `tests.small_train`: real plans and events, no torch."""
    monkeypatch.setitem(runs.MODULES, Phase.TRAINING, "tests.small_train")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))


@pytest.fixture
def live(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """The real application over an empty data directory."""
    if "small_trainer" in request.fixturenames:
        request.getfixturevalue("small_trainer")  # before the server: it would make ready for the real one
    with LiveServer(settings(tmp_path)) as server:
        yield server


@pytest.fixture
def wire(live: LiveServer) -> Wire:
    """A user of it."""
    return Wire(live.http)
