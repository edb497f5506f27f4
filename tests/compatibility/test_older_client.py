"""The older `nemo-microservices` client, unchanged and in an environment of its own, does its customization calls.

`make setup` makes that environment; TUNESMITH_NEMO_MICROSERVICES_PYTHON names another.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.live import LiveServer, Wire

HERE = Path(__file__).parent
CHAPTERS = ("train", "refusals", "cancel", "lists", "configs_and_targets")


@pytest.fixture
def older_python() -> str:
    """The Python that has the older client."""
    own = HERE.parent.parent / ".venv-nemo-microservices" / "bin" / "python"
    found = os.environ.get("TUNESMITH_NEMO_MICROSERVICES_PYTHON") or str(own)
    assert Path(found).exists(), f"{found} is missing: run `make setup`"
    return found


@pytest.mark.usefixtures("small_trainer")
def test_it_submits_follows_lists_and_cancels_unchanged(older_python: str, wire: Wire, live: LiveServer) -> None:
    wire.model("llama-3.1-8b-instruct")
    wire.dataset("support-tone-v3")
    wire.dataset("endless", behaviour="hang")
    told = subprocess.run(
        [older_python, str(HERE / "older_client.py"), live.url],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.splitlines() == [f"{chapter}: ok" for chapter in CHAPTERS]
