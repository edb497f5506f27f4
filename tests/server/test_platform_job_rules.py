"""Bad platform jobs are refused at the door, with the field, the rule and the way out, and nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.control.platform import Platform, allowing, shell
from tests.live import FILES, JOBS, LiveServer, Wire
from tunesmith.control.platform_jobs import NEXT, auto_name
from tunesmith.refs import JOB_NAME_LIMIT, check_name

IMAGE = {"image": "busybox"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Platform jobs are allowed, and none of them ever runs: the one slot is taken."""
    folder = tmp_path_factory.mktemp("rules")
    with LiveServer(allowing(folder, platform_job_slots=1)) as live:
        Platform(live.http).post(shell("hold", "sleep 600"), name="holder")
        yield live
        Platform(live.http).sweep(folder / "data")


@pytest.fixture
def platform(server: LiveServer) -> Platform:
    """A user of it."""
    return Platform(server.http)


def step(**changes: Any) -> dict[str, Any]:
    return {**shell("work", "true"), **changes}


def test_platform_jobs_are_off_by_default(live: LiveServer) -> None:
    answer = Platform(live.http).post(shell("work", "true"))
    assert answer.status_code == 403
    assert "allow_subprocess_jobs (TUNESMITH_ALLOW_SUBPROCESS_JOBS=1)" in answer.json()["detail"]
    assert live.http.get("/apis/jobs/v2/execution-profiles").json() == []
    assert live.http.get(JOBS).json()["data"] == []


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "Value error, At least one step is required in the platform spec."),
        ([step(), step()], "Value error, Each step must have a unique name."),
        (
            [step(environment=[{"name": "A", "value": "1", "from_secret": {"name": "s"}}])],
            "Value error, Only one of value or from_secret may be given.",
        ),
        ([step(environment=[{"name": "A"}])], "Value error, One of value or from_secret must be given."),
        ([step(environment=[{"name": "A=B", "value": ""}])], "Value error, 'A=B' is not a variable's name"),
        ([step(name="Work")], "String should match pattern"),
        ([step(executor={"provider": "cloud"})], "does not match any of the expected tags"),
        ([step(lifecycle={"staleness_timeout_seconds": -1})], "greater than or equal to 0"),
    ],
)
def test_the_grammar_of_steps(platform: Platform, steps: list[dict[str, Any]], message: str) -> None:
    answer = platform.post(*steps, name="bad")
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["detail"][0]["msg"]
    assert platform.http.get(f"{JOBS}/bad").status_code == 404


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        (
            {"provider": "gpu", "container": IMAGE},
            "The execution profile 'gpu/default' specified in step 'work' does not exist. There is subprocess/default,",
        ),
        (
            {"provider": "cpu", "profile": "big", "container": IMAGE},
            "The execution profile 'cpu/big' specified in step 'work' does not exist.",
        ),
        ({"provider": "gpu_distributed", "container": IMAGE}, "'gpu_distributed/default'"),
        ({"provider": "subprocess", "profile": "other", "command": ["true"]}, "'subprocess/other'"),
        ({"provider": "subprocess", "command": []}, "step 'work' has no command"),
        ({"provider": "cpu", "container": IMAGE}, "step 'work' has no command"),
    ],
)
def test_executors_that_cannot_run_here(platform: Platform, executor: dict[str, Any], message: str) -> None:
    answer = platform.post(step(executor=executor), name="bad")
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["detail"]


def test_the_profile_that_there_is_is_told(platform: Platform) -> None:
    (profile,) = platform.http.get("/apis/jobs/v2/execution-profiles").json()
    assert (profile["provider"], profile["profile"], profile["backend"]) == ("subprocess", "default", "subprocess")
    assert profile["config"]["graceful_shutdown_timeout_seconds"] == 10


def test_a_missing_secret_is_a_conflict_that_is_not_tried_again(platform: Platform) -> None:
    answer = platform.post(step(environment=[{"name": "KEY", "from_secret": {"name": "gone"}}]), name="bad")
    assert answer.status_code == 409
    assert answer.headers["x-should-retry"] == "false"
    said = answer.json()["detail"]
    assert said.startswith("Unable to create job because one or more referenced secrets were not found or are not")
    assert "Step 'work', environment KEY: 'default/gone' does not exist" in said


def test_a_twin_is_told_whether_it_asks_for_the_same(platform: Platform) -> None:
    assert platform.post(step(), name="twin").status_code == 201
    same, other = platform.post(step(), name="twin"), platform.post(step(name="other"), name="twin")
    assert (same.status_code, other.status_code) == (409, 409)
    assert same.json()["detail"].endswith("It was submitted with the same spec.")
    assert other.json()["detail"].endswith("It was submitted with another spec.")


def test_an_idempotency_key_answers_with_the_first_job(platform: Platform) -> None:
    key = {"Idempotency-Key": "once"}
    first = platform.post(step(), name=None, headers=key).json()
    assert platform.post(step(), name=None, headers=key).json()["id"] == first["id"]
    answer = platform.post(step(name="other"), name=None, headers=key)
    assert answer.status_code == 409
    assert "'once' was used for job" in answer.json()["detail"]


def test_names_workspaces_and_sources(platform: Platform) -> None:
    assert platform.post(step(), name="a" * 52).status_code == 422
    made = platform.post(step(), name=None, source="My_Tool that has a long name").json()
    assert made["name"].startswith("my-tool-that-has-a-l-")
    assert len(made["name"]) == 29
    refused = platform.post(step(), source="customization")
    assert refused.status_code == 422
    assert "is what this platform calls its own training jobs" in refused.json()["detail"]
    elsewhere = JOBS.replace("default", "nowhere")
    body = {"source": "tests", "spec": {}, "platform_spec": {"steps": [step()]}}
    assert platform.http.post(elsewhere, json=body).status_code == 422
    assert platform.http.post(FILES, json={"name": "job-fileset-taken"}).status_code == 200
    assert platform.post(step(), name="taken").status_code == 409


@pytest.mark.parametrize("source", ["x", "1st", "", "-", "Ünïcode tool", "a" * 60, "a--b", "_.@"])
def test_every_source_gives_a_lawful_name(source: str) -> None:
    check_name(auto_name(source), limit=JOB_NAME_LIMIT)


def test_final_statuses_are_final() -> None:
    assert {status for status, following in NEXT.items() if not following} == {"completed", "cancelled", "error"}


def test_steps_of_training_jobs_are_shown_and_moved_by_nobody_else(live: LiveServer) -> None:
    wire = Wire(live.http)
    wire.model()
    wire.dataset()
    assert wire.submit().status_code == 201
    name = "model-and-dataset-download"
    step_path = f"{JOBS}/job/steps/{name}"
    assert wire.http.get(step_path).json()["name"] == name
    assert wire.http.get(f"{JOBS}/job/steps").json()["data"][0]["name"] == name
    assert len(wire.http.get(f"{step_path}/tasks").json()["data"]) == 1
    assert wire.http.get(f"{JOBS}/job/results").json() == {"data": []}
    moved = wire.http.patch(f"{step_path}/status", json={"status": "completed"})
    assert moved.status_code == 409
    assert "whose steps the platform moves by itself" in moved.json()["detail"]
    assert wire.http.put(f"{step_path}/tasks/task-x", json={}).status_code == 409
    assert wire.http.patch(f"{JOBS}/job/status-details", json={"note": 1}).json() is None
    assert wire.http.patch(f"{JOBS}/job/status-details", json={"checkpoint_step": 1}).status_code == 409
    assert wire.state()["status_details"]["note"] == 1
