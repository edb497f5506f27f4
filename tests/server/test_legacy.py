"""The older service's calls over HTTP: the published command as one command, statuses, lists, logs, configs."""

from __future__ import annotations

import json
import re
import shlex
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.live import ADAPTERS, AUTOMODEL, JOBS, LiveServer, Wire, eventually
from tunesmith.control import submission
from tunesmith.planning import rules

LEGACY = "/v1/customization"
JSON = {"content-type": "application/json"}
PUBLISHED = """
curl -X POST http://nemo-customizer/v1/customization/jobs
-H "Content-Type: application/json"
-d '{
"config": "meta/llama-3.1-8b-instruct",
"dataset": {"name": "support-tone-v3"},
"hyperparameters": {
"training_type": "sft",
"finetuning_type": "lora",
"epochs": 3,
"lora": {"adapter_dim": 16}
}
}'
"""
BODY: dict[str, Any] = {
    "config": "meta/llama-3.1-8b-instruct",
    "dataset": {"name": "support-tone-v3"},
    "hyperparameters": {"finetuning_type": "lora", "batch_size": 8},
}
SECRETS = "/apis/secrets/v2/workspaces/default/secrets"


@pytest.fixture
def ready(wire: Wire) -> Wire:
    """A user who has a model and a data set."""
    wire.model("llama-3.1-8b-instruct")
    wire.dataset("support-tone-v3")
    return wire


def submit(wire: Wire, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
    return wire.http.post(f"{LEGACY}/jobs", json={"name": "job", **BODY, **changes}, headers=headers)


def curl(command: str, host: str) -> httpx.Response:
    """What curl would send, read as a shell reads it."""
    words = shlex.split(command.replace("http://nemo-customizer", host))
    assert words[0] == "curl"
    method, url = words[words.index("-X") + 1], next(word for word in words if word.startswith("http://"))
    headers = dict([words[words.index("-H") + 1].split(": ")])
    return httpx.request(method, url, headers=headers, content=words[words.index("-d") + 1])


@pytest.mark.usefixtures("small_trainer")
def test_the_published_command_becomes_an_adapter(ready: Wire, live: LiveServer) -> None:
    made = curl(PUBLISHED, live.url)
    assert made.status_code == 201, made.text
    job = made.json()
    assert (job["config"], job["dataset"]) == ("meta/llama-3.1-8b-instruct", {"name": "support-tone-v3"})
    tuned = job["hyperparameters"]
    assert (tuned["training_type"], tuned["finetuning_type"], tuned["epochs"]) == ("sft", "lora", 3)
    assert (tuned["lora"]["adapter_dim"], tuned["lora"]["alpha"]) == (16, 32)
    assert (tuned["batch_size"], tuned["learning_rate"]) == (32, 1e-4)
    ready.wait(job["name"])
    status = ready.http.get(f"{LEGACY}/jobs/{job['id']}/status").json()
    assert status["status"] == "completed"
    assert status["percentage_done"] == 100.0
    (adapter,) = ready.http.get(ADAPTERS).json()["data"]
    assert f"default/{adapter['name']}" == job["output_model"]
    assert adapter["lora_config"] == {"rank": 16, "alpha": 32}


@pytest.mark.usefixtures("small_trainer")
def test_the_status_has_counters_metrics_with_times_and_a_history(ready: Wire) -> None:
    submit(ready, hyperparameters={"finetuning_type": "lora", "batch_size": 8, "epochs": 2})
    ready.wait()
    status = ready.http.get(f"{LEGACY}/jobs/job/status").json()
    # 36 of 40 rows are trained on, 8 a step: 5 steps an epoch
    counters = ("epochs_completed", "steps_completed", "steps_per_epoch", "percentage_done", "best_epoch")
    assert [status[name] for name in counters] == [2, 10, 5, 100.0, 1]
    assert (status["train_loss"], status["val_loss"]) == (pytest.approx(0.1), 0.5)
    assert status["metrics"]["keys"] == ["train_loss", "val_loss", "train_accuracy", "val_accuracy"]
    series = status["metrics"]["metrics"]
    assert [point["step"] for point in series["train_loss"]] == list(range(1, 11))
    assert series["val_loss"][0]["value"] == 0.5
    assert (series["train_accuracy"], series["val_accuracy"]) == ([], [])
    times = [datetime.fromisoformat(point["timestamp"]) for point in series["train_loss"]]
    assert times == sorted(times)
    assert datetime.fromisoformat(status["created_at"]) <= times[0] <= datetime.fromisoformat(status["updated_at"])
    assert 0 < status["elapsed_time"] < 60
    messages = [log["message"] for log in status["status_logs"]]
    assert messages[0] == "created"
    assert "training: completed" in messages
    assert messages[-1] == "completed"


@pytest.mark.usefixtures("small_trainer")
def test_a_job_shows_one_training_option_and_everything_that_was_filled_in(ready: Wire) -> None:
    submit(
        ready,
        hyperparameters={"finetuning_type": "lora", "optimizer": "adamw_with_flat_lr", "log_every_n_steps": 1},
        output_model="default/tone@v2",
        description="ours",
        custom_fields={"team": "a"},
        ownership={"created_by": "ada"},
    )
    job = ready.http.get(f"{LEGACY}/jobs/job").json()
    assert (job["namespace"], job["name"], job["description"]) == ("default", "job", "ours")
    assert (job["custom_fields"], job["ownership"]) == ({"team": "a"}, {"created_by": "ada"})
    assert job["output_model"] == "default/tone"
    assert job["hyperparameters"]["optimizer"] == "adamw_with_flat_lr"
    assert job["hyperparameters"]["sequence_packing_enabled"] is False
    snapshot = job["config_snapshot"]
    assert (snapshot["base_model"], snapshot["max_seq_length"]) == ("default/llama-3.1-8b-instruct", 2048)
    option = snapshot["training_option"]
    assert (option["training_type"], option["finetuning_type"], option["num_gpus"], option["data_parallel_size"]) == (
        "sft",
        "lora",
        1,
        1,
    )
    assert job["status_details"]["status"] == job["status"]
    assert all(set(warning) == {"message", "explanation"} for warning in job["warnings"])
    assert any("max_seq_length" in warning["message"] for warning in job["warnings"])
    ready.wait()


@pytest.mark.usefixtures("small_trainer")
def test_statuses_have_the_older_words(wire: Wire) -> None:
    wire.model("llama-3.1-8b-instruct")
    wire.dataset("support-tone-v3", behaviour="hang")
    made = submit(wire).json()
    assert made["status"] in ("created", "pending", "running")
    url = f"{LEGACY}/jobs/{made['id']}"
    eventually(lambda: wire.http.get(f"{url}/status").json()["steps_completed"], "the first step")
    assert wire.http.get(url).json()["status"] == "running"
    assert wire.http.get(f"{LEGACY}/jobs", params={"filter[status]": "running"}).json()["data"][0]["id"] == made["id"]
    wire.http.post(f"{JOBS}/job/pause")
    wire.wait("job", "paused")
    assert wire.http.get(url).json()["status"] == "pending"
    wire.http.post(f"{JOBS}/job/resume")
    eventually(lambda: wire.http.get(f"{url}/status").json()["steps_completed"] == 2, "the second step")
    assert wire.http.post(f"{url}/cancel").json()["status"] == "cancelling"
    wire.wait()
    assert wire.http.post(f"{LEGACY}/jobs/job/cancel").json()["status"] == "cancelled"


@pytest.mark.usefixtures("small_trainer")
def test_a_failed_job_says_why_in_status_and_container_logs(wire: Wire) -> None:
    wire.model("llama-3.1-8b-instruct")
    wire.dataset("support-tone-v3", behaviour="fail")
    submit(wire)
    wire.wait()
    status = wire.http.get(f"{LEGACY}/jobs/job/status").json()
    assert status["status"] == "failed"
    assert status["status_logs"][-1]["detail"] == "out of luck at step 1"
    logs = wire.http.get(f"{LEGACY}/jobs/job/container-logs").json()
    training = logs["entries"]["training"]
    assert "step 1 epoch 1 loss 1.0000" in training["logs"]["training"]
    assert (training["status"], training["object"]) == ({"phase": "failed"}, "job/training")
    assert [(event["type"], event["message"], event["count"]) for event in training["events"]] == [
        ("Warning", "out of luck at step 1", "1")
    ]
    error = logs["error"]
    assert (error["exception_type"], error["message"]) == ("CudaError", "out of luck at step 1")
    assert error["explanation"] == "Traceback ..."


@pytest.mark.usefixtures("small_trainer")
def test_jobs_of_other_doors_and_namespaces_are_shown_too(ready: Wire) -> None:
    ready.http.post("/apis/entities/v2/workspaces", json={"name": "team"}).raise_for_status()
    spec = {
        "model": "default/llama-3.1-8b-instruct",
        "dataset": {"training": "default/support-tone-v3"},
        "training": {},
    }
    ready.http.post(AUTOMODEL, json={"name": "ours", "spec": {**spec, "schedule": {"epochs": 2}}}).raise_for_status()
    there = AUTOMODEL.replace("default", "team")
    ready.http.post(there, json={"name": "theirs", "spec": spec}).raise_for_status()
    submit(ready, namespace="team", dataset="default/support-tone-v3").raise_for_status()
    shown = {job["name"]: job for job in ready.http.get(f"{LEGACY}/jobs").json()["data"]}
    assert {name: job["namespace"] for name, job in shown.items()} == {
        "ours": "default",
        "theirs": "team",
        "job": "team",
    }
    ours = shown["ours"]
    assert (ours["config"], ours["hyperparameters"]["epochs"]) == ("default/llama-3.1-8b-instruct", 2)
    assert ours["dataset"] == {"name": "support-tone-v3", "namespace": "default"}
    assert ours["hyperparameters"]["lora"] == {"adapter_dim": 16, "alpha": 32, "adapter_dropout": 0.0}
    assert ready.http.get(f"{LEGACY}/jobs/theirs").json()["id"] == shown["theirs"]["id"]


FILTERS: list[tuple[dict[str, Any], bool]] = [
    ({"namespace": "default"}, True),
    ({"namespace": "team"}, False),
    ({"status": "completed"}, True),
    ({"status": "failed"}, False),
    ({"status": "ready"}, False),
    ({"base_model": "llama-3.1-8b-instruct"}, True),
    ({"base_model": "default/llama-3.1-8b-instruct@v1"}, True),
    ({"base_model": "other"}, False),
    ({"dataset": "support-tone-v3"}, True),
    ({"dataset": "hf://datasets/default/support-tone-v3"}, True),
    ({"dataset": "tone-v3"}, False),
    ({"finetuning_type": "lora"}, True),
    ({"finetuning_type": "all_weights"}, False),
    ({"training_type": "sft"}, True),
    ({"training_type": "dpo"}, False),
    ({"batch_size": 8}, True),
    ({"batch_size": 9}, False),
    ({"epochs": 1}, True),
    ({"epochs": 2}, False),
    ({"project": "apollo"}, False),
    ({"namespace": "default", "epochs": 1, "status": "completed"}, True),
    ({"namespace": "default", "epochs": 2}, False),
]


@pytest.mark.usefixtures("small_trainer")
def test_every_filter_of_the_list_counts_or_is_refused(ready: Wire) -> None:
    submit(ready)
    ready.wait()
    for wanted, found in FILTERS:
        query = {f"filter[{name}]": value for name, value in wanted.items()}
        page = ready.http.get(f"{LEGACY}/jobs", params=query).json()
        assert [job["name"] for job in page["data"]] == ["job"] * found, wanted
        assert {name: str(value) for name, value in page["filter"].items()} == {
            name: str(value) for name, value in wanted.items()
        }
    for wanted, message in (
        ({"filter[log_every_n_steps]": 1}, "every job logs every step"),
        ({"filter[colour]": "red"}, "'colour' is none of base_model, batch_size"),
        ({"filter[status]": "active"}, "status 'active' is none of created, pending, running"),
        ({"filter[epochs]": "many"}, "epochs must be a whole number"),
        ({"filter[epochs][$gt]": "1"}, "filter[key]=value only"),
        ({"filter[training_type]": "ppo"}, "is none of sft, dpo"),
    ):
        answer = ready.http.get(f"{LEGACY}/jobs", params=wanted)
        assert answer.status_code == 400, wanted
        assert message in answer.json()["detail"]
    assert ready.http.get(f"{LEGACY}/jobs", params={"sort": "name"}).status_code == 422


@pytest.mark.usefixtures("small_trainer")
def test_a_page_beyond_the_last_is_empty(ready: Wire) -> None:
    submit(ready)
    page = ready.http.get(f"{LEGACY}/jobs", params={"page": 7, "page_size": 5, "sort": "created_at"})
    assert page.status_code == 200
    assert page.json() == {
        "data": [],
        "object": "list",
        "pagination": {"page": 7, "page_size": 5, "current_page_size": 0, "total_pages": 1, "total_results": 1},
        "sort": "created_at",
        "filter": None,
        "search": None,
    }
    ready.wait()


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"config": None}, "config", "valid string"),
        ({"hyperparameters": {}}, "hyperparameters.finetuning_type", "is missing"),
        ({"hyperparameters": {"finetuning_type": "lora", "colour": 1}}, "hyperparameters.colour", "no such field"),
        ({"hyperparameters": {"finetuning_type": "p_tuning"}}, "hyperparameters.finetuning_type", "'lora'"),
        (
            {"hyperparameters": {"finetuning_type": "lora", "lora": {"adapter_dim": 0}}},
            "hyperparameters.lora.adapter_dim",
            "greater than 0",
        ),
        ({"hyperparameters": {"finetuning_type": "lora", "batch_size": 0}}, "hyperparameters.batch_size", "than 0"),
        (
            {
                "config": {
                    "target": "default/llama-3.1-8b-instruct",
                    "training_options": [
                        {"training_type": "sft", "finetuning_type": "lora", "num_gpus": 1, "micro_batch_size": 3}
                    ],
                }
            },
            "",
            "hyperparameters.batch_size (8) must be divisible by micro_batch_size (3)",
        ),
        ({"dataset_parameters": {"num_hard_negatives": 2}}, "dataset_parameters", "embedding models"),
        ({"output_model": "elsewhere/tone"}, "output_model", "must be in the job's namespace"),
        ({"colour": "red"}, "colour", "Extra inputs"),
    ],
)
def test_a_broken_rule_names_the_field_as_it_was_sent(
    ready: Wire, changes: dict[str, Any], field: str, message: str
) -> None:
    answer = submit(ready, **changes)
    assert answer.status_code == 422, answer.text
    wrong = answer.json()["detail"][0]
    assert ".".join(map(str, wrong["loc"])).startswith(f"body.{field}".rstrip("."))
    assert message in wrong["msg"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": "meta/none"}, "config: Model entity not found: 'meta/none' nor 'default/none'."),
        ({"dataset": "none"}, "dataset: Dataset fileset 'none' not found"),
        ({"output_model": "My_Out"}, "output_model: 'My_Out' is not a lawful name"),
        ({"namespace": "nowhere", "config": "default/llama-3.1-8b-instruct"}, "nowhere"),
        (
            {"hyperparameters": {"finetuning_type": "lora", "lora": {"target_modules": ["w"]}}},
            "hyperparameters.lora.target_modules: 'w' matches no linear layer",
        ),
        (
            {"hyperparameters": {"finetuning_type": "all_weights", "training_type": "dpo"}},
            "hyperparameters.training_type",
        ),
    ],
)
def test_a_rule_of_model_data_or_engine_names_it_too(ready: Wire, changes: dict[str, Any], message: str) -> None:
    answer = submit(ready, **changes)
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["detail"]
    assert ready.http.get(f"{LEGACY}/jobs").json()["data"] == []


def test_a_job_that_is_not_there(wire: Wire) -> None:
    for method, path in (("GET", ""), ("GET", "/status"), ("POST", "/cancel"), ("GET", "/container-logs")):
        answer = wire.http.request(method, f"{LEGACY}/jobs/none{path}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Job 'none' not found"})


@pytest.mark.usefixtures("small_trainer")
def test_a_name_in_several_namespaces_is_asked_for_by_id(ready: Wire) -> None:
    ids = {}
    for namespace in ("team-a", "team-b", "default"):
        if namespace != "default":
            ready.http.post("/apis/entities/v2/workspaces", json={"name": namespace}).raise_for_status()
        made = submit(ready, namespace=namespace, dataset="default/support-tone-v3")
        ids[namespace] = made.json()["id"]
        found = ready.http.get(f"{LEGACY}/jobs/job")
        if namespace == "team-b":
            assert found.status_code == 400
            assert "several namespaces have a job 'job' (team-a, team-b)" in found.json()["detail"]
        else:
            assert found.json()["id"] == ids[namespace]
    assert ready.http.get(f"{LEGACY}/jobs/{ids['team-b']}").json()["namespace"] == "team-b"


@pytest.mark.usefixtures("small_trainer")
def test_a_wandb_key_is_kept_as_the_jobs_secret_and_goes_with_it(ready: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    built = tuple(row for row in rules.CAPABILITIES if row.field != "integrations.wandb")
    monkeypatch.setattr(rules, "CAPABILITIES", built)
    monkeypatch.setattr(submission, "find_spec", lambda name: name, raising=False)  # as if the package were here
    before = ready.http.get(SECRETS).json()["data"]
    tracked = [{"type": "wandb", "wandb": {"project": "tone", "tags": ["v3"]}}]
    made = submit(ready, {"wandb-api-key": "local-0123"}, name="a.b+c", integrations=tracked)
    assert made.status_code == 201, made.text
    assert made.json()["integrations"] == tracked
    assert "local-0123" not in made.text
    (secret,) = [each for each in ready.http.get(SECRETS).json()["data"] if each not in before]
    assert re.fullmatch(r"a-b-c-wandb-[0-9a-f]{4}", secret["name"])
    spec = ready.http.get(f"{AUTOMODEL}/a.b+c").json()["spec"]
    assert spec["integrations"]["wandb"]["api_key_secret"] == secret["name"]
    twin = submit(ready, {"wandb-api-key": "local-0123"}, name="a.b+c", integrations=tracked)
    assert twin.status_code == 409
    assert [each["name"] for each in ready.http.get(SECRETS).json()["data"]] == [secret["name"]]
    ready.wait("a.b+c")
    assert ready.http.delete(f"{JOBS}/a.b+c").status_code == 204
    assert ready.http.get(SECRETS).json()["data"] == before


def test_a_wandb_key_twice_is_refused(ready: Wire) -> None:
    named = [{"type": "wandb", "wandb": {"api_key_secret": "mine"}}]
    answer = submit(ready, {"wandb-api-key": "local-0123"}, integrations=named)
    assert answer.status_code == 422
    assert "the header wandb-api-key is given too" in answer.json()["detail"]
    assert "local-0123" not in answer.text


def test_configs_and_targets_are_made_from_model_entities(ready: Wire) -> None:
    ready.http.post("/apis/models/v2/workspaces/default/models", json={"name": "no-checkpoint"}).raise_for_status()
    (config,) = ready.http.get(f"{LEGACY}/configs").json()["data"]
    assert (config["namespace"], config["name"]) == ("default", "llama-3.1-8b-instruct")
    assert (config["max_seq_length"], config["target"]) == (128, "default/llama-3.1-8b-instruct")
    assert {"training_type": "sft", "finetuning_type": "lora"}.items() <= config["training_options"][0].items()
    assert ready.http.get(f"{LEGACY}/configs/default/llama-3.1-8b-instruct").json() == config
    (target,) = ready.http.get(f"{LEGACY}/targets").json()["data"]
    assert (target["status"], target["enabled"], target["precision"]) == ("ready", True, "bf16")
    assert target["num_parameters"] > 0
    assert (target["base_model"], target["model_path"]) == ("llama-3.1-8b-instruct", "default/llama-3.1-8b-instruct")
    assert ready.http.get(f"{LEGACY}/targets/default/llama-3.1-8b-instruct@v1").json() == target
    for noun in ("configs", "targets"):
        for name in ("none", "no-checkpoint"):
            assert ready.http.get(f"{LEGACY}/{noun}/default/{name}").status_code == 404


@pytest.mark.usefixtures("small_trainer")
def test_a_config_as_it_was_retrieved_can_be_sent_back(ready: Wire) -> None:
    config = ready.http.get(f"{LEGACY}/configs/default/llama-3.1-8b-instruct").json()
    made = submit(ready, config=config)
    assert made.status_code == 201, made.text
    assert made.json()["config"]["name"] == "llama-3.1-8b-instruct"
    assert made.json()["config_snapshot"]["max_seq_length"] == 128
    assert ready.wait()["status"] == "completed"


@pytest.mark.parametrize(
    ("noun", "wanted", "found"),
    [
        ("configs", {"name": "llama-3.1-8b-instruct"}, True),
        ("configs", {"namespace": "team"}, False),
        ("configs", {"training_type": "sft", "finetuning_type": "lora"}, True),
        ("configs", {"training_type": "grpo"}, False),
        ("configs", {"target_name": "default/llama-3.1-8b-instruct@v1"}, True),
        ("configs", {"target_base_model": "llama-3.1-8b-instruct"}, True),
        ("configs", {"target_base_model": "other"}, False),
        ("configs", {"target_enabled": "false"}, False),
        ("targets", {"status": "ready"}, True),
        ("targets", {"status": "downloading"}, False),
        ("targets", {"enabled": "true", "base_model": "llama-3.1-8b-instruct"}, True),
    ],
)
def test_filters_of_configs_and_targets(ready: Wire, noun: str, wanted: dict[str, str], found: bool) -> None:
    query = {f"filter[{name}]": value for name, value in wanted.items()}
    page = ready.http.get(f"{LEGACY}/{noun}", params=query).json()
    assert [each["name"] for each in page["data"]] == ["llama-3.1-8b-instruct"] * found
    assert page["filter"] == wanted


@pytest.mark.parametrize(
    ("noun", "query"),
    [
        ("configs", {"filter[enabled]": "true"}),
        ("configs", {"filter[training_type]": "ppo"}),
        ("targets", {"filter[status]": "completed"}),
        ("targets", {"filter[name][$like]": "x"}),
    ],
)
def test_filters_that_configs_and_targets_have_not_are_refused(wire: Wire, noun: str, query: dict[str, str]) -> None:
    assert wire.http.get(f"{LEGACY}/{noun}", params=query).status_code == 400


def test_configs_and_targets_are_not_changed_here(wire: Wire) -> None:
    for noun in ("configs", "targets"):
        for method, path in (("POST", ""), ("PATCH", "/default/x"), ("DELETE", "/default/x")):
            answer = wire.http.request(method, f"{LEGACY}/{noun}{path}", content=json.dumps({}), headers=JSON)
            assert answer.status_code == 405
            assert "made from model entities" in answer.json()["detail"]
            assert answer.headers["allow"] == "GET"
