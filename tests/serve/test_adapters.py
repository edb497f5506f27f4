"""Adapters come and go over HTTP while the base goes on serving."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file

from tests.generate.reference import assert_same_choice, greedy
from tests.serve.conftest import BASE
from tunesmith.serve.adapters import PROBE_FILE

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
PROMPT = [7, 8, 9, 10]
WEIGHTS = "adapter_model.safetensors"


def load(http: TestClient, name: str, path: Path) -> Any:
    return http.post(LOAD, json={"lora_name": name, "lora_path": str(path)})


def served(http: TestClient) -> list[str]:
    return [entry["id"] for entry in http.get("/v1/models").json()["data"]]


def answer(http: TestClient, model: str) -> Any:
    return http.post("/v1/completions", json={"model": model, "prompt": PROMPT, "temperature": 0, "max_tokens": 8})


@pytest.fixture
def folder(adapted: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the adapter that a test may spoil."""
    return Path(shutil.copytree(adapted[0], tmp_path / "adapter"))


@pytest.fixture(autouse=True)
def _only_the_base_stays(http: TestClient) -> Iterator[None]:
    yield
    for name in served(http)[1:]:
        http.post(UNLOAD, json={"lora_name": name})
    assert served(http) == [BASE]


def test_a_loaded_adapter_is_listed_answers_as_peft_does_and_goes(
    http: TestClient, adapted: tuple[Path, Any], deployment: Path
) -> None:
    directory, model = adapted
    reply = load(http, "mine", directory)
    assert (reply.status_code, reply.text) == (200, "Success: LoRA adapter 'mine' added successfully.")
    entry = http.get("/v1/models").json()["data"][1]
    assert entry["created"] > 0
    assert {key: entry[key] for key in ("id", "object", "owned_by", "parent", "root")} == {
        "id": "mine",
        "object": "model",
        "owned_by": "tunesmith",
        "parent": BASE,
        "root": str(directory),
    }
    whole = answer(http, "mine").json()
    tokens, gaps = greedy(model, PROMPT, 8)
    from tunesmith.data.tokens import Tokenizer

    tokenizer = Tokenizer.load(deployment / "inputs" / "model")
    assert_same_choice(
        tokenizer.encode(whole["choices"][0]["text"]), (tokenizer.encode(tokenizer.decode(tokens)), gaps)
    )
    assert whole["choices"] != answer(http, BASE).json()["choices"]

    gone = http.post(UNLOAD, json={"lora_name": "mine"})
    assert (gone.status_code, gone.text) == (200, "Success: LoRA adapter 'mine' removed successfully.")
    missing = answer(http, "mine")
    assert missing.status_code == 404
    assert BASE in missing.json()["error"]["message"]
    assert http.post(UNLOAD, json={"lora_name": "mine"}).status_code == 404


def test_a_name_that_is_taken_is_refused(http: TestClient, adapted: tuple[Path, Any]) -> None:
    assert load(http, "mine", adapted[0]).status_code == 200
    for name in ("mine", BASE):
        reply = load(http, name, adapted[0])
        assert reply.status_code == 400
        assert "already" in reply.json()["error"]["message"]


def spoil_shape(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    key = next(key for key in tensors if "lora_A" in key)
    save_file({**tensors, key: torch.zeros(4, 31)}, folder / WEIGHTS)


def spoil_name(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({key.replace("layers.1", "layers.9"): value for key, value in tensors.items()}, folder / WEIGHTS)


def spoil_values(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({key: torch.full_like(value, torch.nan) for key, value in tensors.items()}, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_shape, "31 inputs"),
        (spoil_name, "layers.9"),
        (spoil_values, "not finite"),
        (lambda folder: (folder / WEIGHTS).unlink(), "safetensors"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"nonsense"), "cannot be read"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json"),
        (lambda folder: shutil.rmtree(folder), "adapter_config.json"),
        (lambda folder: (folder / PROBE_FILE).write_text("{"), PROBE_FILE),
    ],
    ids=["shape", "module", "nan", "no weights", "broken weights", "no config", "no folder", "broken probe"],
)
def test_a_bad_adapter_is_refused_with_the_reason_and_the_server_goes_on(
    http: TestClient, folder: Path, spoil: Any, says: str
) -> None:
    before = answer(http, BASE).json()["choices"]
    spoil(folder)
    reply = load(http, "bad", folder)
    assert reply.status_code == 400
    assert says in reply.json()["error"]["message"]
    assert served(http) == [BASE]
    assert answer(http, BASE).json()["choices"] == before


def write_probe(folder: Path, model: Any, shift: float, compute: str = "fp32", way: float = 0.0) -> None:
    """What `model` says, `shift` nats off; the base is said to be `way` nats away from it."""
    with torch.no_grad():
        best = model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1).topk(5)
    top = [
        {"token": int(token), "trained": float(value) + shift, "base": float(value) + shift + way}
        for value, token in zip(*best, strict=True)
    ]
    probe = {"version": 1, "prompt_ids": PROMPT, "compute": compute, "top": top}
    (folder / PROBE_FILE).write_text(json.dumps(probe))


def test_an_adapter_whose_probe_agrees_is_loaded(http: TestClient, folder: Path, adapted: tuple[Path, Any]) -> None:
    write_probe(folder, adapted[1], shift=0)
    assert load(http, "probed", folder).status_code == 200
    write_probe(folder, adapted[1], shift=0.2, compute="bf16")
    assert load(http, "rounded", folder).status_code == 200
    write_probe(folder, adapted[1], shift=0.9, compute="bf16", way=4.0)
    assert load(http, "rounded-a-long-way-from-the-base", folder).status_code == 200


@pytest.mark.parametrize(
    ("shift", "compute", "way"),
    [(0.01, "fp32", 4.0), (0.3, "bf16", 0.0), (1.1, "bf16", 4.0), (float("nan"), "bf16", 4.0)],
)
def test_an_adapter_whose_probe_disagrees_is_refused(
    http: TestClient, folder: Path, adapted: tuple[Path, Any], shift: float, compute: str, way: float
) -> None:
    write_probe(folder, adapted[1], shift, compute, way)
    reply = load(http, "wrong", folder)
    assert reply.status_code == 400
    assert "probe does not agree" in reply.json()["error"]["message"]
    assert served(http) == [BASE]


def test_a_probe_of_the_base_alone_is_refused(http: TestClient, folder: Path, plain: Any) -> None:
    write_probe(folder, plain, shift=0)
    assert load(http, "swapped", folder).status_code == 400
