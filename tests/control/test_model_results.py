"""A job whose result is a model: an entity that says where it comes from, can be read, served and trained again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.live import ADAPTERS, CONFIGS, DEPLOYMENTS, FILES, MODELS, LiveServer, Wire, checkpoint
from tunesmith.refs import Ref

pytestmark = pytest.mark.usefixtures("small_trainer")
WHOLE = {"finetuning_type": "all_weights"}
MERGED = {"finetuning_type": "lora_merged"}


@pytest.fixture
def ready(wire: Wire) -> Wire:
    """A user with a model, which calls tools in its own way, and rows."""
    wire.model()
    calling = {"chat_template": "{{ messages }}", "tool_call_parser": "hermes", "auto_tool_choice": True}
    answer = wire.http.patch(f"{FILES}/base", json={"metadata": {"model": {"tool_calling": calling}}})
    assert answer.status_code == 200, answer.text
    wire.analysed("base")
    wire.dataset()
    return wire


def made(wire: Wire, name: str, **spec: Any) -> dict[str, Any]:
    """The state of a job that makes `tuned`, once it is completed."""
    answer = wire.submit(name, output={"name": "tuned"}, **spec)
    assert answer.status_code == 201, answer.text
    state = wire.wait(name)
    assert state["status"] == "completed", state
    return state


@pytest.mark.parametrize("training", [WHOLE, MERGED], ids=["all weights", "merged"])
def test_the_result_is_a_model_that_is_read_and_can_be_trained_again(ready: Wire, training: dict[str, Any]) -> None:
    state = made(ready, "job", training=training)
    assert state["steps"][-1]["status_details"]["model"] == "default/tuned"
    model = ready.analysed("tuned")
    assert (model["base_model"], model["fileset"]) == ("default/base", "default/tuned")
    assert model["finetuning_type"] == training["finetuning_type"]
    assert model["custom_fields"]["spec_status"] == "completed", model
    base = ready.http.get(f"{MODELS}/base").json()
    assert model["spec"]["family"] == base["spec"]["family"] == "llama"
    calling = model["spec"]["tool_call_config"]
    assert (calling["tool_call_parser"], calling["auto_tool_choice"]) == ("hermes", True)
    files = {file["path"] for file in ready.http.get(f"{FILES}/tuned/files").json()["data"]}
    assert files == {*checkpoint(), "README.md", "provenance.json", "tunesmith_probe.json"}
    assert ready.http.get(f"{ADAPTERS}/tuned").status_code == 404
    again = ready.submit("again", model="tuned", training=WHOLE, output={"name": "tuned-again"})
    assert again.status_code == 201, again.text
    assert ready.wait("again")["status"] == "completed"
    assert ready.http.get(f"{MODELS}/tuned-again").json()["base_model"] == "default/tuned"


def test_the_same_output_again_is_a_new_version_and_the_old_one_is_kept(ready: Wire, live: LiveServer) -> None:
    made(ready, "first", training=WHOLE)
    ready.analysed("tuned")
    state = made(ready, "second", training=MERGED)
    assert state["steps"][-1]["status_details"]["replaced_version"] == 1
    model = ready.analysed("tuned")
    assert (model["finetuning_type"], model["custom_fields"]["spec_status"]) == ("lora_merged", "completed")
    read = live.services.database.read(lambda tx: tx.versions.of("model", Ref("default", "tuned")))
    (before,) = asyncio.run(read)
    assert before["facts"]["finetuning_type"] == "all_weights"
    assert {path for path, *_ in before["snapshot"]["files"]} >= set(checkpoint())


@pytest.mark.parametrize("lora", [True, False])
def test_what_is_deployed_with_the_job_is_the_new_model(ready: Wire, lora: bool) -> None:
    state = made(ready, "job", training=WHOLE, deployment_config={"gpu": 0, "lora_enabled": lora})
    name = state["status_details"]["deployment"].removeprefix("default/")
    deployment = ready.http.get(f"{DEPLOYMENTS}/{name}").json()
    config = ready.http.get(f"{CONFIGS}/{deployment['config'].removeprefix('default/')}").json()
    assert config["model_entity_id"] == "default/tuned"
    assert config["model_spec"]["lora_enabled"] is lora
