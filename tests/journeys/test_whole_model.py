"""All weights, end to end: the model that a job made is deployed with the job, answers, and is trained on again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live import DEPLOYMENTS, OPENAI, LiveServer, Wire, eventually, settings
from tests.models import tiny_llama

ANSWER = "yes it is"


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Wire]:
    """Somebody with a tiny Llama and rows that have one answer."""
    base = tmp_path / "base"
    tiny_llama(base, hidden_size=64, intermediate_size=128)
    chats = (
        [{"role": "user", "content": f"is {n} a number?"}, {"role": "assistant", "content": ANSWER}] for n in range(40)
    )
    rows = "".join(json.dumps({"messages": chat}) + "\n" for chat in chats)
    with LiveServer(settings(tmp_path)) as live:
        wire = Wire(live.http)
        wire.model("base", {path.name: path.read_bytes() for path in base.iterdir()})
        wire.fileset("rows", {"train.jsonl": rows.encode()})
        yield wire


def train(wire: Wire, name: str, **spec: Any) -> dict[str, Any]:
    asked = {"schedule": {"epochs": 6, "val_check_interval": 1000}, "optimizer": {"learning_rate": 3e-3}, **spec}
    answer = wire.submit(name, **asked, output={"name": name})
    assert answer.status_code == 201, answer.text
    state = wire.wait(name)
    assert state["status"] == "completed", state["error_details"]
    return state


def test_a_model_is_trained_whole_deployed_asked_and_trained_again(user: Wire) -> None:
    whole = {"finetuning_type": "all_weights", "max_seq_length": 128, "precision": "fp32"}
    state = train(user, "whole", training=whole, deployment_config={"lora_enabled": True})
    deployment = state["status_details"]["deployment"].removeprefix("default/")

    def ready() -> bool:
        found = user.http.get(f"{DEPLOYMENTS}/{deployment}").json()
        assert found["status"] != "ERROR", found
        return bool(found["status"] == "READY")

    eventually(ready, "the model to be served")
    question = {"messages": [{"role": "user", "content": "is 7 a number?"}], "max_tokens": 12, "temperature": 0}
    answer = user.http.post(f"{OPENAI}/chat/completions", json={"model": "whole", **question})
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == ANSWER

    train(user, "again", model="whole", training={"lora": {"rank": 4}, "max_seq_length": 128, "precision": "fp32"})

    def served() -> httpx.Response | None:
        found = user.http.post(f"{OPENAI}/chat/completions", json={"model": "again", **question})
        return found if found.status_code == 200 else None

    adapted = eventually(served, "the adapter to be served beside it")
    assert adapted.json()["choices"][0]["message"]["content"] == ANSWER
