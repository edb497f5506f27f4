"""What things are called, how long files are, and what must not be left lying about."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PYTHON = [*SOURCES, *(p for f in ("tests", "demo", "scripts", "bench", "compat") for p in (ROOT / f).rglob("*.py"))]
KEPT = {".ci", "bench", "compat", "demo", "docs", "scripts", "src", "tests"}
TEXT = [
    path
    for path in sorted([*ROOT.glob("*.*"), ROOT / "Makefile", *(p for f in KEPT for p in (ROOT / f).rglob("*"))])
    if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".pyc", ".png", ".ico", ".woff2"}
]

MOST_LINES = 450
EMPTY_WORDS = re.compile(r"manager|handler|helper|util", re.IGNORECASE)
# Written in pieces, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(" + "TO" + "DO|FIX" + r"ME|X" + r"XX)\b")
NOT_OURS = re.compile(
    "/" + r"work/|/" + r"root/|/opt/(wheels|pypi)|shared/" + r"(design|contract|seeds)|"
    r"\b(this|an earlier|a previous|the last|your) " + r"session\b",
    re.IGNORECASE,
)


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_can_be_read_in_one_sitting(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MOST_LINES, f"{name(path)} has {lines} lines; at {MOST_LINES} it is two files"


def test_names_say_what_a_thing_is():
    wrong = [name(path) for path in SOURCES if EMPTY_WORDS.search(path.stem)]
    for path in SOURCES:
        classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        wrong += [f"{name(path)}: {node.name}" for node in classes if EMPTY_WORDS.search(node.name)]
    assert not wrong


def test_nothing_is_left_for_later():
    marks = [f"{name(p)}: {found[0]}" for p in PYTHON for found in UNFINISHED.finditer(p.read_text())]
    stubs = [name(p) for p in SOURCES if "NotImplementedError" in p.read_text()]
    assert not marks + stubs


def test_nothing_speaks_of_the_machine_it_was_written_on():
    found = []
    for path in TEXT:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if match := NOT_OURS.search(line):
                found.append(f"{name(path)}:{number}: {match[0]}")
    assert not found
