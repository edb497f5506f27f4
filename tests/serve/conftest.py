"""The application over a tiny model in this process, and adapters made by PEFT to load into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from tests.generate.reference import write_peft_adapter
from tests.models import CHATML, tiny_llama
from tunesmith.handoff.deployment import DEPLOYMENT_FILE, TOKEN_VARIABLE, Deployment
from tunesmith.model.load import load_model
from tunesmith.serve.__main__ import prepare

BASE = "default/tiny"
TOKEN = "a-token"
ALLOWED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as the platform lays it out."""
    directory = tmp_path_factory.mktemp("deployment")
    tiny_llama(directory / "inputs" / "model")
    Deployment(served_model=BASE, compute="fp32", chat_template=CHATML, max_batch=4).write(directory / DEPLOYMENT_FILE)
    return directory


@pytest.fixture(scope="session")
def plain(deployment: Path) -> Any:
    """transformers' model, as it is."""
    return load_model(deployment / "inputs" / "model", "fp32", "sdpa", torch.device("cpu"))


@pytest.fixture(scope="session")
def http(deployment: Path) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(TOKEN_VARIABLE, TOKEN)
        engine, app = prepare(deployment)
    yield TestClient(app, headers=ALLOWED, raise_server_exceptions=False)
    engine.close()


@pytest.fixture(scope="session")
def adapted(deployment: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An adapter's folder and PEFT's model with it."""
    directory = tmp_path_factory.mktemp("adapter")
    base = load_model(deployment / "inputs" / "model", "fp32", "sdpa", torch.device("cpu"))
    return directory, write_peft_adapter(base, directory, 4, ["q_proj", "v_proj", "down_proj"], seed=5)
