"""Remote filesets as a user meets them: made, listed, read, analysed and trained on through the real application."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.control.sources.standins.hub import COMMIT, Hub
from tests.live import CONFIGS, DEPLOYMENTS, FILES, JOBS, MODELS, LiveServer, Wire, checkpoint, eventually, settings
from tunesmith.control import contents

CANARY = "hf_canary1234567890"
SECRETS = "/apis/secrets/v2/workspaces/default/secrets"
ROWS = b"".join(json.dumps({"prompt": f"w{i}", "completion": "w1 w2"}).encode() + b"\n" for i in range(40))
LARGE = checkpoint(hidden=256, vocabulary=8192)
"""Its weights have 4 MiB, their header is at the start."""
WEIGHTS = hashlib.sha256(LARGE["model.safetensors"]).hexdigest()


@pytest.fixture
def wire(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """A user of a platform whose hub is the stand-in, which has a model and a data set."""
    monkeypatch.setattr(contents, "LATER_SECONDS", ())
    hub.add("acme/base", LARGE)
    hub.add("acme/rows", {"train.jsonl": ROWS}, kind="datasets")
    with LiveServer(replace(settings(tmp_path), hub_endpoint=hub.url)) as server:
        yield Wire(server.http)


def make(wire: Wire, name: str, repo_id: str, fileset: dict[str, Any] | None = None, **storage: str) -> Any:
    body = {"name": name, "storage": {"type": "huggingface", "repo_id": repo_id, **storage}, **(fileset or {})}
    return wire.http.post(FILES, json=body)


def remote_inputs(wire: Wire) -> None:
    """`base` and `rows`, both elsewhere."""
    assert make(wire, "base", "acme/base").status_code == 200
    assert make(wire, "rows", "acme/rows", repo_type="dataset").status_code == 200
    assert wire.http.post(MODELS, json={"name": "base", "fileset": "default/base"}).status_code == 201


def cached(wire: Wire, name: str) -> dict[str, str]:
    listed = wire.http.get(f"{FILES}/{name}/files", params={"include_cache_status": "true"}).json()["data"]
    return {file["path"]: file["cache_status"] for file in listed}


def test_a_fileset_over_a_repository_is_made_listed_and_read(wire: Wire, hub: Hub) -> None:
    made = make(wire, "base", "acme/base").json()
    assert made["storage"]["revision"] == COMMIT
    assert made["storage"]["original_revision"] == "main"
    assert made["storage"]["endpoint"] == hub.url
    listed = wire.http.get(f"{FILES}/base/files").json()["data"]
    assert {file["path"]: file["size"] for file in listed} == {path: len(content) for path, content in LARGE.items()}
    assert [file.get("cache_status") for file in listed] == [None] * 4
    where = f"{FILES}/base/-/model.safetensors"
    part = wire.http.get(where, headers={"Range": "bytes=8-107"})
    assert (part.status_code, part.content) == (206, LARGE["model.safetensors"][8:108])
    assert set(cached(wire, "base").values()) == {"not_cached"}
    assert wire.http.get(where).content == LARGE["model.safetensors"]
    assert cached(wire, "base")["model.safetensors"] == "cached"
    hub.cdn.asked.clear()
    assert wire.http.get(where).content == LARGE["model.safetensors"]
    assert hub.cdn.asked == []


def test_with_cache_the_files_come_without_being_asked_for(wire: Wire, hub: Hub) -> None:
    assert make(wire, "base", "acme/base", {"cache": True}).status_code == 200
    eventually(lambda: set(cached(wire, "base").values()) == {"cached"}, "all files to be here")


def test_refusals_have_their_status_and_leave_nothing_behind(wire: Wire, hub: Hub) -> None:
    hub.add("acme/gated", {"a": b"1"}, token="other", gated=True)
    for repo, status, said in (
        ("acme/none", 400, "does not exist"),
        ("acme/gated", 400, "accept its conditions"),
    ):
        answer = make(wire, "refused", repo)
        assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
    answer = make(wire, "refused", "acme/base", endpoint="https://example.org")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(
        "Storage host or endpoint not in allowed list: Host 'https://example.org'"
    )
    hub.busy = [(500, "")]
    answer = make(wire, "refused", "acme/base")
    assert answer.status_code == 502
    assert answer.json()["detail"].startswith("Storage backend unavailable:")
    hub.busy = [(429, "3600")]
    assert make(wire, "refused", "acme/base").status_code == 503
    assert wire.http.get(f"{FILES}/refused").status_code == 404


def test_a_token_opens_a_private_repository_and_is_said_nowhere(
    wire: Wire, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.add("acme/private", {"rows.jsonl": ROWS}, token=CANARY)
    missing = make(wire, "private", "acme/private", token_secret="hub")
    assert missing.status_code == 400
    assert missing.json()["detail"].startswith("Secret not found: Secret 'default/hub' not found")
    assert wire.http.post(SECRETS, json={"name": "hub", "value": CANARY}).status_code == 201
    made = make(wire, "private", "acme/private", token_secret="hub")
    assert made.status_code == 200, made.text
    assert wire.http.get(f"{FILES}/private/-/rows.jsonl").content == ROWS
    hub.repositories["models/acme/private"].token = "another"
    refused = make(wire, "again", "acme/private", token_secret="hub")
    assert refused.status_code == 400
    said = missing.text + made.text + refused.text + caplog.text
    written = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert CANARY not in said
    assert CANARY.encode() not in written


def test_a_remote_checkpoint_is_understood_without_its_weights(wire: Wire, hub: Hub) -> None:
    remote_inputs(wire)
    model = eventually(
        lambda: (found := wire.http.get(f"{MODELS}/base").json())["spec"] and found, "the model to be analysed"
    )
    assert model["spec"]["family"] == "llama"
    assert model["spec"]["hidden_size"] == 256
    assert cached(wire, "base")["model.safetensors"] == "not_cached"
    assert [each.range for each in hub.cdn.bodies(WEIGHTS)] == ["bytes=0-1048575"]


@pytest.mark.usefixtures("small_trainer")
def test_a_job_fetches_its_inputs_and_trains_on_them(wire: Wire) -> None:
    remote_inputs(wire)
    submitted = wire.submit()
    assert submitted.status_code == 201, submitted.text
    state = wire.wait()
    assert state["status"] == "completed", state
    details = state["status_details"]
    assert details["total_filesets"] == 2
    assert details["progress_pct"] == 100
    assert details["training_rows"] == 36
    assert set(cached(wire, "base").values()) == set(cached(wire, "rows").values()) == {"cached"}


@pytest.mark.usefixtures("small_trainer")
def test_a_job_shows_its_fetch_and_is_cancelled_in_the_middle_of_it(wire: Wire, hub: Hub) -> None:
    remote_inputs(wire)
    hub.cdn.hold[WEIGHTS] = 3 << 20
    assert wire.submit().status_code == 201
    shown = eventually(
        lambda: (now := wire.state()["status_details"]).get("phase") == "downloading" and now["progress_pct"] and now,
        "the fetch to be shown",
    )
    assert shown["fileset"] == "default/base"
    assert shown["total_files"] >= 1
    assert 0 < shown["downloaded_bytes"] < shown["total_size"]
    assert cached(wire, "base")["model.safetensors"] == "caching"
    wire.http.post(f"{JOBS}/job/cancel")
    assert wire.wait()["status"] == "cancelled"
    assert cached(wire, "base")["model.safetensors"] == "not_cached"


@pytest.mark.usefixtures("small_trainer")
def test_a_job_whose_storage_is_gone_ends_with_who_and_why(wire: Wire, hub: Hub) -> None:
    remote_inputs(wire)
    del hub.repositories["datasets/acme/rows"]
    assert wire.submit().status_code == 201
    state = wire.wait()
    assert state["status"] == "error"
    assert state["error_details"]["type"] == "DownloadError"
    assert hub.url in state["error_details"]["message"]
    assert "storage.token_secret" in state["error_details"]["message"]


def deploy(wire: Wire) -> dict[str, Any]:
    """The deployment of `base`, once it is past its fetch."""
    eventually(lambda: wire.http.get(f"{MODELS}/base").json()["spec"], "the model to be analysed")
    config = {"name": "recipe", "engine": "nim", "model_spec": {"model_name": "base"}, "executor_config": {"gpu": 0}}
    made = wire.http.post(CONFIGS, json=config)
    assert made.status_code == 201, made.text
    made = wire.http.post(DEPLOYMENTS, json={"name": "served", "config": "recipe"})
    assert made.status_code in (200, 201), made.text
    return eventually(
        lambda: (found := wire.http.get(f"{DEPLOYMENTS}/served").json())["status"] != "CREATED" and found,
        "the deployment to be past its fetch",
    )


def test_a_deployment_fetches_its_checkpoint_before_its_process_starts(wire: Wire) -> None:
    remote_inputs(wire)
    assert deploy(wire)["status"] in ("PENDING", "READY")
    assert set(cached(wire, "base").values()) == {"cached"}


def test_a_deployment_whose_storage_is_gone_says_so(wire: Wire, hub: Hub) -> None:
    remote_inputs(wire)
    hub.cdn.cuts[WEIGHTS] = [1 << 20, *[0] * 9]
    found = deploy(wire)
    assert found["status"] == "ERROR"
    assert found["status_message"].startswith("The checkpoint of default/base cannot be fetched: Storage backend unav")


def test_nothing_can_be_uploaded_into_a_remote_fileset(wire: Wire) -> None:
    assert make(wire, "rows", "acme/rows", repo_type="dataset").status_code == 200
    assert wire.http.put(f"{FILES}/rows/-/more.jsonl", content=b"{}").status_code in (400, 409)
