"""The keepers of the rooms do keep: imports in the wrong direction, planted in a copy, are found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WRONG = {
    "spec": "tunesmith.api.base",  # upstairs
    "refs_beside": "tunesmith.cli",  # a room nobody has put on a floor
    "server": "tunesmith.client",  # a sibling
    "client": "tunesmith.planning",  # past its neighbour
    "train": "tunesmith.spec.base",  # the other tower
    "control": "tunesmith.train",  # the other tower, from the other side
    "data": "tunesmith.refs",  # ground that is not its own
    "handoff": "tunesmith.spec",
    "planning": "torch",
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory):
    """What lint-imports says about a copy of the house with one wrong import in each of some rooms."""
    copy = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "src", copy / "src", ignore=lambda _, names: [n for n in names if n == "__pycache__"])
    shutil.copy(ROOT / "pyproject.toml", copy)
    for room, module in WRONG.items():
        folder = copy / "src" / "tunesmith" / room
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
        (folder / "planted.py").write_text(f"import {module}\n")
    for one, other in (("planted_here", "planted_there"), ("planted_there", "planted_here")):
        (copy / f"src/tunesmith/store/{one}.py").write_text(f"def later():\n    import tunesmith.store.{other}\n")
    answer = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1, answer.stdout + answer.stderr
    return answer.stdout


@pytest.mark.parametrize("room", [room for room in WRONG if room != "refs_beside"])
def test_an_import_in_the_wrong_direction_is_found(complaints, room):
    assert f"tunesmith.{room}.planted -> {WRONG[room]}" in complaints


def test_a_circle_is_found(complaints):
    assert "No cycles are allowed in tunesmith.store" in complaints


def test_a_room_on_no_floor_is_found(complaints):
    assert "refs_beside" in complaints
