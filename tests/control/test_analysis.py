"""Specs are read from checkpoints by themselves, again when the files change, and failures are visible."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.live import (
    CONFIGS,
    DEPLOYMENTS,
    FILES,
    MODELS,
    LiveServer,
    Wire,
    adapter_files,
    checkpoint,
    eventually,
    settings,
)
from tunesmith.control.analysis import Analysis
from tunesmith.control.contents import Contents
from tunesmith.errors import Upstream
from tunesmith.store.filesets import Snapshot, StoredFile


def test_a_model_answers_at_once_and_its_spec_comes_by_itself(wire: Wire) -> None:
    wire.fileset("base", checkpoint())
    answer = wire.http.post(MODELS, json={"name": "base", "fileset": "base"})
    assert answer.json()["spec"] is None
    assert answer.json()["custom_fields"] == {"spec_status": "pending"}
    model = wire.analysed("base")
    assert model["spec"]["family"] == "llama"
    assert model["custom_fields"] == {"spec_status": "completed"}


def test_a_corrected_fileset_is_analysed_again(wire: Wire) -> None:
    files = checkpoint()
    wire.fileset("base", {**files, "config.json": b"{"})
    wire.http.post(MODELS, json={"name": "base", "fileset": "base"})
    broken = wire.analysed("base")
    assert broken["spec"] is None
    assert broken["custom_fields"]["spec_status"] == "failed"
    assert "config.json: not JSON" in broken["custom_fields"]["spec_error"]
    wire.http.put(f"{FILES}/base/-/config.json", content=files["config.json"])
    eventually(lambda: wire.analysed("base")["spec"], "the corrected checkpoint to be read")
    wire.http.delete(f"{FILES}/base/-/model.safetensors")
    eventually(lambda: wire.analysed("base")["spec"] is None, "the loss of the weights to be noticed")
    assert "no *.safetensors" in wire.analysed("base")["custom_fields"]["spec_error"]


def test_metadata_of_the_fileset_win_over_the_checkpoint(wire: Wire) -> None:
    calling = {"chat_template": "{{ messages }}", "tool_call_parser": "hermes", "auto_tool_choice": True}
    wire.http.post(FILES, json={"name": "base", "metadata": {"model": {"tool_calling": calling}}})
    for path, content in {**checkpoint(), "chat_template.jinja": b"other"}.items():
        wire.http.put(f"{FILES}/base/-/{path}", content=content)
    wire.http.post(MODELS, json={"name": "base", "fileset": "base"})
    spec = wire.analysed("base")["spec"]
    assert (spec["chat_template"], spec["is_chat"]) == ("{{ messages }}", True)
    assert spec["tool_call_config"]["tool_call_parser"] == "hermes"
    assert spec["tool_call_config"]["auto_tool_choice"] is True


def test_a_new_fileset_is_read_and_a_given_spec_stays(wire: Wire) -> None:
    wire.model("base", checkpoint(layers=2))
    wire.fileset("deeper", checkpoint(layers=3))
    answer = wire.http.patch(f"{MODELS}/base", json={"fileset": "deeper"}).json()
    assert (answer["spec"], answer["custom_fields"]["spec_status"]) == (None, "pending")
    spec = wire.analysed("base")["spec"]
    assert spec["num_layers"] == 3
    wire.http.patch(f"{MODELS}/base", json={"spec": {**spec, "num_layers": 99}})
    wire.http.put(f"{FILES}/deeper/-/config.json", content=b"{")
    model = wire.analysed("base")
    assert (model["spec"]["num_layers"], model["custom_fields"]["spec_status"]) == (99, "given")


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"model.gguf": b"GGUF"}, "GGUF files cannot be fine-tuned"),
        (adapter_files(), "it holds an adapter: create it under its base model"),
        ({"config.json": b"{}", "weights.pt": b"x"}, "weights.pt is not a checkpoint that is loaded without running"),
        ({f"ckpt/{path}": content for path, content in checkpoint().items()}, "its checkpoint lies in 'ckpt/'"),
        ({"model.safetensors": checkpoint()["model.safetensors"]}, "has no config.json at its root"),
        ({**checkpoint(), "config.json": b"[" * 100_000}, "config.json: not JSON"),
        (
            {**checkpoint(), "model.safetensors.index.json": json.dumps({"weight_map": {"a": "gone"}}).encode()},
            "names gone, which is not in the fileset",
        ),
    ],
)
def test_what_is_no_checkpoint_is_named_with_the_way_out(wire: Wire, files: dict[str, bytes], why: str) -> None:
    model = wire.model(files=files)
    assert model["spec"] is None
    assert model["custom_fields"]["spec_status"] == "failed"
    assert why in model["custom_fields"]["spec_error"]


def test_a_checkpoint_in_bin_is_counted_from_its_configuration(wire: Wire) -> None:
    files = checkpoint()
    del files["model.safetensors"]
    model = wire.model(files={**files, "pytorch_model.bin": b"never read here"})
    assert model["custom_fields"] == {"spec_status": "completed"}
    assert model["spec"]["base_num_parameters"] == 64 * 8 + 8 + 2 * (2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16 + 2 * 8)


def test_what_was_pending_when_the_server_died_is_read_by_the_next(tmp_path: Path) -> None:
    with LiveServer(settings(tmp_path)) as first:
        first.server.config.app.state.services.analysis.pending = _nothing
        wire = Wire(first.http)
        wire.fileset("base", checkpoint())
        wire.http.post(MODELS, json={"name": "base", "fileset": "base"})
        assert wire.http.get(f"{MODELS}/base").json()["custom_fields"] == {"spec_status": "pending"}
    with LiveServer(settings(tmp_path)) as second:
        assert Wire(second.http).analysed("base")["spec"]["family"] == "llama"


def test_a_storage_that_does_not_answer_is_noted_and_tried_again(wire: Wire, live: LiveServer) -> None:
    analysis: Analysis = live.server.config.app.state.services.analysis
    contents = analysis.contents
    analysis.contents = _Down(contents)  # type: ignore[assignment]
    wire.fileset("base", checkpoint())
    wire.http.post(MODELS, json={"name": "base", "fileset": "base"})

    def noted() -> Any:
        return wire.http.get(f"{MODELS}/base").json()["custom_fields"].get("spec_error")

    assert "hub.example is down" in eventually(noted, "the trouble to be noted")
    assert wire.http.get(f"{MODELS}/base").json()["custom_fields"]["spec_status"] == "pending"
    analysis.contents = contents
    assert wire.analysed("base")["custom_fields"] == {"spec_status": "completed"}


def test_only_heads_of_weights_are_read(wire: Wire, live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    read = Contents.read

    async def noting(
        self: Contents, snapshot: Snapshot, file: StoredFile, start: int = 0, length: int | None = None
    ) -> bytes:
        content = await read(self, snapshot, file, start, length)
        if file.path.endswith(".safetensors"):
            taken.append(len(content))
        return content

    monkeypatch.setattr(Contents, "read", noting)
    files = checkpoint(hidden=256, vocabulary=16_000)
    assert len(files["model.safetensors"]) > 8 << 20
    wire.model(files=files)
    assert sum(taken) <= 1 << 20


def test_a_deployment_waits_for_the_analysis_and_says_why_it_cannot_start(wire: Wire, live: LiveServer) -> None:
    analysis: Analysis = live.server.config.app.state.services.analysis
    look = analysis.pending
    analysis.pending = _nothing  # type: ignore[method-assign]
    wire.fileset("base", {**checkpoint(), "config.json": b"{"})
    wire.http.post(MODELS, json={"name": "base", "fileset": "base"})
    recipe = {"name": "recipe", "engine": "nim", "model_spec": {"model_name": "base"}, "executor_config": {"gpu": 0}}
    assert wire.http.post(CONFIGS, json=recipe).status_code == 201
    assert wire.http.post(DEPLOYMENTS, json={"name": "served", "config": "recipe"}).status_code == 201
    refused = wire.http.delete(f"{MODELS}/base")
    assert refused.status_code == 409
    assert "deployment default/served" in refused.json()["detail"]
    analysis.pending = look  # type: ignore[method-assign]

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = wire.http.get(f"{DEPLOYMENTS}/served").json()
        return found if found["status"] == "ERROR" else None

    assert "config.json: not JSON" in eventually(ended, "the deployment to give up")["status_message"]
    second = wire.http.post(DEPLOYMENTS, json={"name": "another", "config": "recipe"})
    assert second.status_code == 422
    assert "the checkpoint of model 'default/base' cannot be read: config.json: not JSON" in second.json()["detail"]


async def _nothing() -> list[Any]:
    await asyncio.sleep(0)
    return []


class _Down:
    """Contents of a storage that cannot be reached."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents

    async def read(self, *_: Any, **__: Any) -> bytes:
        raise Upstream("Storage backend unavailable: hub.example is down")
