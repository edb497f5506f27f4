"""The synchronous client is what the asynchronous one says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "unasync.py"


@pytest.fixture(scope="module")
def unasync():
    spec = importlib.util.spec_from_file_location("tunesmith_scripts_unasync", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_client_is_up_to_date(unasync):
    assert unasync.differing(unasync.generate()) == []


def test_a_change_by_hand_is_found_and_the_way_out_named(unasync, monkeypatch):
    made = {path.name: path.read_text() for path in unasync.SYNC.glob("*.py")}
    made["jobs.py"] += "# by hand\n"
    monkeypatch.setattr(unasync, "generate", lambda: made)
    monkeypatch.setattr(unasync.sys, "argv", ["unasync.py", "--check"])
    with pytest.raises(SystemExit, match=r"client/sync/jobs.py\nrun `python scripts/unasync.py`"):
        unasync.main()
