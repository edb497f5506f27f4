"""The straight line, end to end, as a user walks it: real server, real trainer, real serving, a tiny model."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.house import House
from tests.live import eventually
from tests.models import tiny_llama
from tunesmith import Tunesmith
from tunesmith.client.errors import APIStatusError

ANSWER = "yes it is"
INTERRUPTED = 130
"""The exit code of a process that Ctrl-C ended, as shells have it."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama on disk."""
    directory = tmp_path_factory.mktemp("base")
    tiny_llama(directory, hidden_size=64, intermediate_size=128, tie_word_embeddings=False)
    return directory


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A platform that is gone, with all its processes, when the test ends."""
    house = House(tmp_path / "data")
    yield house
    if house.process is not None:
        house.down()
    left = house.engines()
    for process in left:
        process.send_signal(signal.SIGKILL)
    assert left == []


def furnish(client: Tunesmith, base: Path, rows: int = 40) -> None:
    """Upload the base and a data set in which every question has the same answer."""
    client.files.filesets.create("base", purpose="model")
    client.files.upload(f"{base}/", fileset="base")
    client.models.create("base", fileset="default/base")
    asked = (f"is {n} a number?" for n in range(rows))
    chats = (
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": ANSWER}]} for text in asked
    )
    client.files.filesets.create("rows", purpose="dataset")
    client.files.upload_content("".join(json.dumps(chat) + "\n" for chat in chats), "train.jsonl", fileset="rows")


def submit(client: Tunesmith, name: str, epochs: int) -> None:
    """A job that learns the data set by heart in enough epochs."""
    spec: dict[str, Any] = {
        "model": "base",
        "dataset": {"training": "rows"},
        "training": {"lora": {"rank": 8}, "max_seq_length": 128, "precision": "fp32"},
        "schedule": {"epochs": epochs, "val_check_interval": 1000},
        "batch": {"micro_batch_size": 8},
        "optimizer": {"learning_rate": 1e-2},
        "output": {"name": name},
    }
    client.customization.automodel.jobs.create(name=name, spec=spec)


def ask(client: Tunesmith, model: str) -> str:
    """What `model` says to a question of the data set."""
    question = [{"role": "user", "content": "is 7 a number?"}]
    answer = client.inference.chat(model=model, messages=question, max_tokens=12, temperature=0)
    return str(answer["choices"][0]["message"]["content"])


def refused(client: Tunesmith, model: str) -> int | None:
    """The status with which `model` is refused; None while it answers."""
    try:
        ask(client, model)
    except APIStatusError as error:
        return error.status_code
    return None


def test_rows_and_a_base_go_in_and_an_adapter_answers(house: House, base: Path) -> None:
    client = house.up()
    furnish(client, base)
    submit(client, "tuned", epochs=10)
    state = client.jobs.wait("tuned", timeout=120)
    assert state.status == "completed", state
    losses = [point["value"] for point in state.status_details["metrics"]["train_loss"]]
    assert losses[-1] < losses[0] / 2

    client.inference.deployment_configs.create(
        "base", model_spec={"model_name": "base", "lora_enabled": True}, executor_config={"gpu": 0}
    )
    client.inference.deployments.create("base", config="base")
    client.inference.deployments.wait("base", until="READY", timeout=120)
    eventually(lambda: refused(client, "tuned") is None, "the adapter to be served")
    assert ask(client, "tuned") == ask(client, "default/tuned") == ask(client, "default--tuned") == ANSWER
    assert ask(client, "base") != ANSWER
    served = client.inference.gateway.openai.get("v1/models")
    assert {model["id"] for model in served["data"]} == {"default/base", "default/tuned"}
    body = {"model": "default--tuned", "messages": [{"role": "user", "content": "is 7 a number?"}], "max_tokens": 12}
    reply = client.inference.gateway.provider.post("v1/chat/completions", name="base", body=body | {"temperature": 0})
    assert reply["choices"][0]["message"]["content"] == ANSWER
    chunks = client.inference.chat(model="tuned", messages=body["messages"], max_tokens=12, temperature=0, stream=True)
    parts = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]]
    assert "".join(parts) == ANSWER

    assert client.models.update_adapter(model_name="base", adapter_name="tuned", enabled=False).enabled is False
    assert refused(client, "tuned") == 404
    assert ask(client, "base") != ANSWER
    client.adapters.update("tuned", enabled=True)
    eventually(lambda: refused(client, "tuned") is None, "the adapter to come back", seconds=10)
    assert ask(client, "tuned") == ANSWER

    client.inference.deployments.delete("base")
    client.inference.deployments.wait("base", until="DELETED", timeout=60)
    assert house.engines() == []
    assert house.down() == INTERRUPTED


def test_a_job_survives_kill_minus_nine_of_the_server(house: House, base: Path) -> None:
    client = house.up()
    furnish(client, base)
    submit(client, "tuned", epochs=30)
    eventually(lambda: client.jobs.get_status("tuned").status_details.get("step"), "the first step")
    trainer = house.rank()
    house.kill()
    assert trainer.is_running()
    client = house.up()
    state = client.jobs.wait("tuned", timeout=120)
    assert state.status == "completed", state
    steps = [point["step"] for point in state.status_details["metrics"]["train_loss"]]
    assert steps[-1] == state.status_details["max_steps"]
    assert [adapter.name for adapter in client.adapters.list()] == ["tuned"]
    eventually(lambda: house.engines() == [], "the job's processes to be gone")


def test_kill_minus_nine_of_the_trainer_ends_the_job_with_nothing_half_made(house: House, base: Path) -> None:
    client = house.up()
    furnish(client, base)
    submit(client, "tuned", epochs=1000)
    eventually(lambda: client.jobs.get_status("tuned").status_details.get("step"), "the first step")
    house.rank().kill()
    state = client.jobs.wait("tuned", timeout=60)
    assert state.status == "error"
    assert state.error_details is not None
    assert "killed by SIGKILL" in state.error_details["message"]
    assert client.adapters.list().data == []
    assert [fileset.name for fileset in client.files.filesets.list(sort="name")] == ["base", "rows"]
    assert client.jobs.get_logs("tuned").total > 2
    eventually(lambda: house.engines() == [], "the job's processes to be gone")


def test_a_deployment_comes_back_after_its_process_dies_and_after_the_server_stops(house: House, base: Path) -> None:
    client = house.up()
    furnish(client, base)
    client.inference.deployment_configs.create("base", model_spec={"model_name": "base"}, executor_config={"gpu": 0})
    client.inference.deployments.create("base", config="base")
    client.inference.deployments.wait("base", until="READY", timeout=120)
    before = ask(client, "base")
    first = house.rank("serve")
    first.kill()
    eventually(lambda: client.inference.deployments.retrieve("base").status != "READY", "the loss to be noticed")
    client.inference.deployments.wait("base", until="READY", timeout=120)
    assert ask(client, "base") == before
    assert house.down() == INTERRUPTED
    assert house.engines() == []
    client = house.up()
    client.inference.deployments.wait("base", until="READY", timeout=120)
    assert ask(client, "base") == before
