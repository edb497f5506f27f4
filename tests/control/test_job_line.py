"""A job from submission to adapter through the real application, with a small trainer in torch's place."""

from __future__ import annotations

import pytest

from tests.live import ADAPTERS, AUTOMODEL, FILES, JOBS, LiveServer, Wire, eventually, settings

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
    with LiveServer(settings(tmp_path)) as second:  # type: ignore[arg-type]
        after = Wire(second.http)
        state = after.wait()
        assert state["status"] == "completed", state
        points = state["status_details"]["metrics"]["train_loss"]
        assert [point["step"] for point in points] == list(range(1, state["status_details"]["max_steps"] + 1))
        assert len(second.http.get(ADAPTERS).json()["data"]) == 1


def test_a_taken_output_name_is_refused_while_a_job_makes_it_and_after(ready: Wire) -> None:
    assert ready.submit("first", output={"name": "tuned"}).status_code == 201
    second = ready.submit("second", output={"name": "tuned"})
    assert second.status_code == 409
    assert "spec.output.name" in second.json()["detail"]
    assert second.headers["x-should-retry"] == "false"
    ready.wait("first")
    assert ready.submit("third", output={"name": "tuned"}).status_code == 409
    assert ready.submit("fourth", output={"name": "base"}).status_code == 409


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
