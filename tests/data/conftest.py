"""A run directory with a tiny checkpoint, for the data room's tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models import tiny_tokenizer
from tunesmith.data.tokens import Tokenizer


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(directory)
    return directory


@pytest.fixture
def tokenizer(tokenizer_dir) -> Tokenizer:
    return Tokenizer.load(tokenizer_dir)


@pytest.fixture
def run(tmp_path, tokenizer_dir) -> Path:
    directory = tmp_path / "run"
    (directory / "inputs" / "data").mkdir(parents=True)
    (directory / "inputs" / "model").symlink_to(tokenizer_dir)
    return directory


@pytest.fixture
def put(run) -> Callable[..., Path]:
    """Write rows (values, or a line as it is) to a file of `inputs/data`."""

    def write(name: str, *rows: Any, below: str = "data") -> Path:
        path = run / "inputs" / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return write
