"""A job from submission to adapter through the real application, with a small trainer in torch's place."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.live import ADAPTERS, AUTOMODEL, DEPLOYMENTS, FILES, JOBS, LiveServer, Wire, eventually, settings
from tunesmith.control import submission
from tunesmith.refs import Ref

pytestmark = pytest.mark.usefixtures("small_trainer")


@pytest.fixture
def ready(wire: Wire) -> Wire:
    """A user who has a model and a data set."""
    wire.model()
    wire.dataset()
    return wire


def test_a_job_becomes_an_enabled_adapter_with_its_files(ready: Wire) -> None:
    assert ready.submit(output={"name": "tuned", "description": "my first"}).status_code == 201
    state = ready.wait()
    assert state["status"] == "completed", state
    assert [(step["name"], step["status"]) for step in state["steps"]] == [
        ("model-and-dataset-download", "completed"),
        ("training", "completed"),
        ("model-upload", "completed"),
        ("model-entity-creation", "completed"),
    ]
    adapter = ready.http.get(f"{ADAPTERS}/tuned").json()
    assert adapter["enabled"] is True
    assert adapter["model"] == "default/base"
    assert adapter["fileset"] == "default/tuned"
    assert adapter["description"] == "my first"
    assert adapter["lora_config"] == {"rank": 16, "alpha": 32}
    files = ready.http.get(f"{FILES}/tuned/files").json()["data"]
    assert [file["path"] for file in files] == ["adapter_config.json", "adapter_model.safetensors"]
    weights = ready.http.get(f"{FILES}/tuned/-/adapter_model.safetensors").content
    assert weights.decode() == state["id"]
    model = ready.http.get("/apis/models/v2/workspaces/default/models/base").json()
    assert [each["name"] for each in model["adapters"]] == ["tuned"]


def test_progress_is_shown_with_metrics_speed_and_time_left(ready: Wire) -> None:
    ready.submit()
    details = ready.wait()["status_details"]
    steps = details["max_steps"]
    assert steps == 5  # 36 rows after the split, 8 a step
    assert details["step"] == steps
    assert details["percentage_done"] == 100
    assert details["train_loss"] == details["loss"] == pytest.approx(1 / steps)
    assert details["val_loss"] == 0.5
    assert details["tokens_per_second"] == 20.0
    assert details["eta_seconds"] == 0
    assert [point["step"] for point in details["metrics"]["train_loss"]] == [1, 2, 3, 4, 5]
    assert details["metrics"]["val_loss"] == [{"step": 5, "epoch": 1, "value": 0.5}]


def test_the_log_tells_the_whole_story_page_by_page(ready: Wire) -> None:
    ready.submit()
    ready.wait()
    lines, cursor = [], None
    while True:
        query = {"limit": 3} | ({"page_cursor": cursor} if cursor else {})
        page = ready.http.get(f"{JOBS}/job/logs", params=query).json()
        lines += [(line["job_step"], line["message"]) for line in page["data"]]
        cursor = page["next_page"]
        if cursor is None:
            break
    assert page["total"] == len(lines) > 6
    assert any(step == "training" and message.startswith("step 1 epoch 1 loss 1.0000") for step, message in lines)
    assert lines[-1][1].startswith("finished at step 5")
    assert ready.http.get(f"{JOBS}/job/logs", params={"page_cursor": "x"}).status_code == 400
    assert ready.http.get(f"{JOBS}/job/logs", params={"limit": 0}).status_code == 422


def test_a_trainer_that_says_why_it_failed_is_quoted(wire: Wire) -> None:
    wire.model()
    wire.dataset(behaviour="fail")
    wire.submit()
    state = wire.wait()
    assert state["status"] == "error"
    expected = {"type": "CudaError", "message": "out of luck at step 1", "detail": "Traceback ..."}
    assert state["error_details"] == expected
    assert state["steps"][-1]["error_details"] == expected
    assert wire.http.get(ADAPTERS).json()["data"] == []


def test_a_trainer_that_dies_leaves_its_last_words_and_how_it_died(wire: Wire) -> None:
    wire.model()
    wire.dataset(behaviour="die")
    wire.submit(output={"name": "tuned"})
    state = wire.wait()
    assert state["status"] == "error"
    assert "killed by SIGKILL" in state["error_details"]["message"]
    assert "a last word" in state["error_details"]["detail"]
    assert wire.http.get(f"{ADAPTERS}/tuned").status_code == 404
    assert wire.http.get(f"{FILES}/tuned").status_code == 404


def test_bad_json_on_line_17_ends_the_job_before_a_device_is_taken(wire: Wire) -> None:
    wire.model()
    good = b'{"prompt": "w1", "completion": "w2"}\n'
    wire.fileset("rows", {"train.jsonl": good * 16 + b'{"prompt": "w1", \n' + good * 3})
    wire.submit()
    state = wire.wait()
    assert state["status"] == "error"
    assert state["error_details"]["type"] == "DatasetFormatError"
    assert "train.jsonl line 17" in state["error_details"]["message"]
    assert [step["name"] for step in state["steps"]] == ["model-and-dataset-download"]


def test_a_running_job_is_cancelled_at_the_next_step(wire: Wire) -> None:
    wire.model()
    wire.dataset(behaviour="hang")
    wire.submit()
    eventually(lambda: wire.state()["status_details"].get("step") == 1, "the first step")
    answer = wire.http.post(f"{JOBS}/job/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelling")
    assert wire.wait()["status"] == "cancelled"
    again = wire.http.post(f"{AUTOMODEL}/job/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")


def test_jobs_wait_for_the_one_slot_and_a_waiting_one_is_cancelled_at_once(wire: Wire) -> None:
    wire.model()
    wire.dataset(behaviour="hang")
    wire.submit("first")
    eventually(lambda: wire.state("first")["status_details"].get("step") == 1, "the first job to train")
    wire.submit("second")
    eventually(lambda: wire.state("second")["status_details"]["phase"] == "queued", "the second job to queue")
    waiting = wire.state("second")
    assert waiting["status"] == "active"
    assert [(step["name"], step["status"]) for step in waiting["steps"]] == [
        ("model-and-dataset-download", "completed"),
        ("training", "pending"),
    ]
    assert wire.http.post(f"{JOBS}/second/cancel").json()["status"] == "cancelled"
    wire.http.post(f"{JOBS}/first/cancel")
    wire.wait("first")


def test_a_second_server_takes_up_what_the_first_left_running(tmp_path: object, wire: Wire, live: LiveServer) -> None:
    wire.model()
    wire.dataset(behaviour="slow", rows=400)
    wire.submit(output={"name": "tuned"})
    eventually(lambda: wire.state()["status_details"].get("step"), "the first step")
    live.__exit__()
    with LiveServer(settings(tmp_path)) as second:
        after = Wire(second.http)
        state = after.wait()
        assert state["status"] == "completed", state
        points = state["status_details"]["metrics"]["train_loss"]
        assert [point["step"] for point in points] == list(range(1, state["status_details"]["max_steps"] + 1))
        assert len(second.http.get(ADAPTERS).json()["data"]) == 1


def test_a_name_that_is_being_made_or_that_no_job_made_is_refused(ready: Wire) -> None:
    assert ready.submit("first", output={"name": "tuned"}).status_code == 201
    second = ready.submit("second", output={"name": "tuned"})
    assert second.status_code == 409
    assert "spec.output.name" in second.json()["detail"]
    assert second.headers["x-should-retry"] == "false"
    ready.wait("first")
    assert ready.submit("fourth", output={"name": "base"}).status_code == 409


def test_the_same_output_again_is_a_new_version_and_the_old_bytes_stay(ready: Wire, live: LiveServer) -> None:
    ready.submit("first", output={"name": "tuned"})
    first = ready.wait("first")
    ready.submit("second", output={"name": "tuned", "description": "better"}, training={"lora": {"rank": 4}})
    second = ready.wait("second")
    assert second["status"] == "completed", second
    assert second["status_details"]["replaced_version"] == 1
    adapter = ready.http.get(f"{ADAPTERS}/tuned").json()
    assert (adapter["description"], adapter["lora_config"]["rank"]) == ("better", 4)
    weights = ready.http.get(f"{FILES}/tuned/-/adapter_model.safetensors").content
    assert weights.decode() == second["id"]
    services = live.services
    (before,) = asyncio.run(services.database.read(lambda tx: tx.versions.of("adapter", Ref("default", "tuned"))))
    assert before["facts"]["rank"] == 16
    kept = {path: digest for path, digest, *_ in before["snapshot"]["files"]}
    collected = ready.http.post("/apis/files/v2/gc", json={})
    assert collected.status_code == 200, collected.text
    assert services.blobs.path(kept["adapter_model.safetensors"]).read_text() == first["id"]


def test_nobody_else_writes_into_what_a_job_made(ready: Wire) -> None:
    ready.submit(output={"name": "tuned"})
    ready.wait()
    refused = ready.http.put(f"{FILES}/tuned/-/adapter_config.json", content=b"{}")
    assert refused.status_code == 403
    assert refused.json()["detail"].startswith("Access denied: This fileset's files are immutable: job results")


def test_the_same_name_again_says_whether_the_spec_was_the_same(ready: Wire) -> None:
    assert ready.submit().status_code == 201
    same, other = ready.submit(), ready.submit(schedule={"epochs": 2})
    assert (same.status_code, other.status_code) == (409, 409)
    assert "submitted with the same spec" in same.json()["detail"]
    assert "submitted with another spec" in other.json()["detail"]


def test_an_idempotency_key_answers_with_the_first_job(ready: Wire) -> None:
    key = {"Idempotency-Key": "4711"}
    spec = {"model": "base", "dataset": {"training": "rows"}, "training": {}}
    first, again = (ready.http.post(AUTOMODEL, json={"spec": spec}, headers=key) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    other = ready.http.post(AUTOMODEL, json={"spec": {**spec, "schedule": {"epochs": 2}}}, headers=key)
    assert other.status_code == 409
    assert first.json()["name"] in other.json()["detail"]
    assert ready.http.get(JOBS).json()["pagination"]["total_results"] == 1


def test_a_job_is_paused_with_a_checkpoint_and_goes_on_behind_it(wire: Wire) -> None:
    wire.model()
    wire.dataset(behaviour="hang-once")
    wire.submit(output={"name": "tuned"})
    eventually(lambda: wire.state()["status_details"].get("step"), "the first step")
    assert wire.http.post(f"{JOBS}/job/pause").json()["status"] == "pausing"
    paused = wire.wait("job", "paused")
    reached = paused["status_details"]["checkpoint_step"]
    assert reached >= 1
    assert [step["status"] for step in paused["steps"]] == ["completed", "paused"]
    assert wire.http.post(f"{JOBS}/job/pause").json()["status"] == "paused"
    assert wire.http.post(f"{JOBS}/job/resume").status_code == 200
    done = wire.wait()
    assert done["status"] == "completed", done
    details = done["status_details"]
    assert details["resumed_from_step"] == reached
    assert [point["step"] for point in details["metrics"]["train_loss"]] == list(range(1, details["max_steps"] + 1))
    log = [line["message"] for line in wire.http.get(f"{JOBS}/job/logs?limit=1000").json()["data"]]
    assert any("stopped at step" in line for line in log)
    assert log[-1].startswith("finished")


def test_a_waiting_job_is_paused_at_once_and_waits_again_when_resumed(wire: Wire) -> None:
    wire.model()
    wire.dataset(behaviour="hang")
    wire.dataset("other")
    wire.submit("first")
    eventually(lambda: wire.state("first")["status_details"].get("step") == 1, "the first job to train")
    wire.submit("second", dataset={"training": "other"})
    queued = eventually(lambda: wire.state("second")["status_details"].get("queue"), "the second job to queue")
    eventually(lambda: wire.state("second")["status_details"]["phase"] == "queued", "the second job to be prepared")
    queued = wire.state("second")["status_details"]["queue"]
    assert queued == {"position": 1, "of": 1, "reason": "waits for 1 of 1 devices"}
    assert wire.http.post(f"{JOBS}/second/pause").json()["status"] == "paused"
    wire.http.post(f"{JOBS}/first/cancel")
    wire.wait("first")
    assert wire.state("second")["status"] == "paused"
    wire.http.post(f"{JOBS}/second/resume")
    assert wire.wait("second")["status"] == "completed"


def test_a_deleted_job_is_gone_at_once_and_what_it_left_a_little_later(wire: Wire, live: LiveServer) -> None:
    wire.model()
    wire.dataset(behaviour="hang")
    wire.submit()
    eventually(lambda: wire.state()["status_details"].get("step") == 1, "the first step")
    run = live.services.data_dir.run(wire.state()["id"])
    assert wire.http.delete(f"{JOBS}/job").status_code == 204
    assert wire.http.get(f"{JOBS}/job").status_code == 404
    wire.dataset("more")
    assert wire.submit(dataset={"training": "more"}).status_code == 201, "its name is free"
    eventually(lambda: not run.exists(), "the run to be cleared away")
    assert wire.wait()["status"] == "completed", "its device is free"
    assert wire.http.delete(f"{AUTOMODEL}/job").status_code == 204
    assert wire.http.get(JOBS).json()["data"] == []


def test_a_run_that_dies_after_progress_begins_again_from_its_checkpoint(wire: Wire) -> None:
    wire.model()
    wire.dataset(behaviour="die-once")
    wire.submit(output={"name": "tuned"})
    done = wire.wait()
    assert done["status"] == "completed", done
    details = done["status_details"]
    assert details["attempt"] == 2
    assert any("goes on from the checkpoint of step" in warning for warning in details["warnings"])
    assert [point["step"] for point in details["metrics"]["train_loss"]] == list(range(1, details["max_steps"] + 1))


def test_the_higher_priority_goes_first(wire: Wire) -> None:
    wire.model()
    wire.dataset(behaviour="hang")
    wire.dataset("quick")
    wire.submit("first")
    eventually(lambda: wire.state("first")["status_details"].get("step") == 1, "the first job to train")
    spec = {"model": "base", "dataset": {"training": "quick"}, "training": {}}
    for name, priority in (("low", 0), ("high", 5)):
        asked = {"name": name, "spec": spec, "custom_fields": {"priority": priority}}
        assert wire.http.post(AUTOMODEL, json=asked).status_code == 201
    for name in ("low", "high"):
        eventually(lambda n=name: wire.state(n)["status_details"]["phase"] == "queued", f"{name} to queue")
    assert [wire.state(name)["status_details"]["queue"]["position"] for name in ("low", "high")] == [2, 1]
    wire.http.post(f"{JOBS}/first/cancel")
    wire.wait("low")
    ended = {name: wire.state(name)["steps"][-1]["updated_at"] for name in ("low", "high")}
    assert ended["high"] < ended["low"]
    wrong = {"spec": spec, "custom_fields": {"priority": "soon"}}
    assert "custom_fields.priority" in wire.http.post(AUTOMODEL, json=wrong).json()["detail"]


def test_secrets_reach_the_trainer_and_a_missing_one_is_refused(
    ready: Wire, live: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"model": "base", "dataset": {"training": "rows"}, "training": {}}
    tracked = {**spec, "integrations": {"wandb": {"project": "p", "api_key_secret": "wandb-key"}}}
    asked = {"name": "tracked", "spec": tracked}
    monkeypatch.setattr(submission, "find_spec", lambda _: object())
    refused = ready.http.post(AUTOMODEL, json=asked)
    assert refused.status_code == 409, refused.text
    assert refused.headers["x-should-retry"] == "false"
    assert "'default/wandb-key' does not exist" in refused.json()["detail"]
    secrets = "/apis/secrets/v2/workspaces/default/secrets"
    assert ready.http.post(secrets, json={"name": "wandb-key", "value": "s3cret-canary"}).status_code == 201
    monkeypatch.setattr(submission, "find_spec", lambda _: None)
    missing = ready.http.post(AUTOMODEL, json=asked)
    assert (missing.status_code, "tunesmith[trackers]" in missing.text) == (422, True)
    monkeypatch.setattr(submission, "find_spec", lambda _: object())
    assert ready.http.post(AUTOMODEL, json=asked).status_code == 201
    assert ready.wait("tracked")["status"] == "completed"
    run = live.services.data_dir.run(ready.state("tracked")["id"])
    assert json.loads((run / "plan.json").read_text())["trackers"]["wandb"] == {
        "name": "tracked",
        "project": "p",
        "entity": "",
        "tags": [],
        "notes": "",
        "base_url": "",
    }
    told = json.loads((run / "events.1.jsonl").read_text().splitlines()[-1])
    assert told["kind"] == "finished"
    printed = (run / "logs" / "train.1.log").read_text()
    assert "WANDB_API_KEY is set" in printed
    assert b"s3cret-canary" not in b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())


def test_deployment_follows_the_job(ready: Wire) -> None:
    ready.submit(output={"name": "tuned"}, deployment_config={"lora_enabled": True})
    details = ready.wait()["status_details"]
    assert details["deployment"].startswith("default/sft-deploy-base-")
    name = details["deployment"].removeprefix("default/")
    assert ready.http.get(f"{DEPLOYMENTS}/{name}").status_code == 200
    ready.submit("again", deployment_config={"lora_enabled": True})
    assert ready.wait("again")["status_details"]["deployment"] == details["deployment"]
    for wrong, said in (
        ({"lora_enabled": False}, "must be true"),
        ("missing", "which does not exist in workspace 'default'"),
        ({"gpu": 4}, "at most 1"),
        ({"image_name": "nim"}, "spec.deployment_config.image_name: the embedded engine has no use for it"),
        ({"additional_envs": {"A": "1"}}, "spec.deployment_config.additional_envs: "),
    ):
        refused = ready.submit("wrong", deployment_config=wrong)
        assert (refused.status_code, said in refused.text) == (422, True), refused.text


def test_lists_are_filtered_by_status_and_source(ready: Wire) -> None:
    ready.submit()
    ready.wait()
    for query, count in (
        ({}, 1),
        ({"filter[status]": "completed"}, 1),
        ({"filter[status]": "active,pending"}, 0),
        ({"filter[source]": "customization"}, 1),
        ({"filter[source]": "automodel"}, 1),
        ({"filter[source]": "rl"}, 0),
    ):
        page = ready.http.get(JOBS, params=query).json()
        assert page["pagination"]["total_results"] == len(page["data"]) == count, query
    refused = ready.http.get(JOBS, params={"filter[status]": "zz"})
    assert refused.status_code == 400
    assert "'zz' is none of" in refused.json()["detail"]
    assert ready.http.get(JOBS, params={"filter[colour]": "red"}).status_code == 400
    assert ready.http.get(AUTOMODEL).json()["data"][0]["spec"]["output"]["type"] == "adapter"
