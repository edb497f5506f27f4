"""A tiny Llama under the engine, and the same one untouched beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.generate.reference import write_peft_adapter
from tests.models import tiny_llama
from tunesmith.data.tokens import Tokenizer
from tunesmith.generate.engine import Engine
from tunesmith.model.load import load_model

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="session")
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    tiny_llama(directory)
    return directory


@pytest.fixture(scope="session")
def plain(checkpoint: Path) -> Any:
    """transformers' model, as it is."""
    return load_model(checkpoint, "fp32", "sdpa", CPU)


@pytest.fixture(scope="session")
def engine(checkpoint: Path) -> Iterator[Engine]:
    engine = Engine(load_model(checkpoint, "fp32", "sdpa", CPU), Tokenizer.load(checkpoint), most_rows=8)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def adapted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Any]]:
    """Three adapters of different ranks and modules: the folder, and PEFT's own model."""
    every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    kinds = [(4, ["q_proj", "v_proj"], {}), (8, every, {}), (2, ["down_proj", "v_proj"], {"use_rslora": True})]
    found = []
    for seed, (rank, targets, more) in enumerate(kinds):
        directory = tmp_path_factory.mktemp(f"adapter{seed}")
        base = load_model(checkpoint, "fp32", "sdpa", CPU)
        found.append((directory, write_peft_adapter(base, directory, rank, targets, seed, **more)))
    return found
