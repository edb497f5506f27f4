"""What importing a room costs, and that the rooms' front doors are empty."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TUNESMITH = Path(__file__).parents[2] / "src" / "tunesmith"

ENGINES = {"torch", "transformers", "peft", "safetensors"}
PLATFORM = {"fastapi", "sqlalchemy", "starlette", "uvicorn"}

HEAVY = {
    "tunesmith": ENGINES | PLATFORM | {"httpx", "pydantic"},
    "tunesmith.cli.main": ENGINES | PLATFORM,
    "tunesmith.client.sync.client": ENGINES | PLATFORM,
    "tunesmith.server.app": ENGINES,
    "tunesmith.data.prepare": ENGINES | PLATFORM,
    "tunesmith.train.loop": PLATFORM,
}
"""What is in nobody's memory after an import of the module."""


@pytest.mark.parametrize("module", HEAVY)
def test_an_import_loads_nothing_heavy(module):
    program = f"import sys, {module}; print(*(set(sys.modules) & {HEAVY[module]!r}))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert not answer.stdout.split()


def test_front_doors_are_empty():
    """`python -m tunesmith.x` runs them all, so a line there costs every process."""
    doors = [path for path in TUNESMITH.rglob("__init__.py") if path.parent != TUNESMITH]
    assert doors
    assert [str(path) for path in doors if path.read_text()] == []


def test_the_house_is_no_deeper_than_a_corner_of_a_room():
    assert [str(p) for p in TUNESMITH.rglob("*.py") if len(p.relative_to(TUNESMITH).parts) > 3] == []


def test_the_keeper_needs_the_standard_library_only():
    """It is started by its file's path with `-I -S`, so that it costs 10 MB and survives what happens to .venv."""
    tree = ast.parse((TUNESMITH / "control" / "launch" / "keeper.py").read_text())
    plain = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    chosen = [node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {module.split(".")[0] for module in plain + chosen} <= sys.stdlib_module_names
