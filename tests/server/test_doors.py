"""The shorthand over HTTP: the published snippet as it is written, and what is said when something is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live import ADAPTERS, AUTOMODEL, Wire, eventually

SHORTHAND = "/apis/customization/v2/workspaces/default/jobs"


@pytest.fixture
def ready(wire: Wire) -> Wire:
    """A user who has a model and a data set."""
    wire.model("llama-3-2-1b")
    wire.dataset("email-training-data")
    return wire


def short(wire: Wire, name: str = "job", beside: dict[str, Any] | None = None, **changes: Any) -> Any:
    spec = {
        "model": "default/llama-3-2-1b",
        "dataset": "fileset://default/email-training-data",
        "training": {"type": "sft", "peft": {"type": "lora"}},
    }
    return wire.http.post(SHORTHAND, json={"name": name, "spec": {**spec, **changes}, **(beside or {})})


@pytest.mark.usefixtures("small_trainer")
def test_the_published_snippet_becomes_an_enabled_adapter_that_is_deployed(ready: Wire) -> None:
    made = ready.http.post(
        SHORTHAND,
        json={
            "name": "my-email-assistant-lora",
            "spec": {
                "model": "default/llama-3-2-1b",
                "dataset": "fileset://default/email-training-data",
                "training": {
                    "type": "sft",
                    "peft": {"type": "lora", "rank": 8, "alpha": 32},
                    "epochs": 3,
                    "batch_size": 32,
                },
                "deployment_config": {"lora_enabled": True},
            },
        },
    )
    assert made.status_code == 201, made.text
    spec = made.json()["spec"]
    assert spec["training"]["peft"] == {"type": "lora", "rank": 8, "alpha": 32}
    assert (spec["dataset"], spec["deployment_config"]) == (
        "fileset://default/email-training-data",
        {"lora_enabled": True},
    )
    state = ready.wait("my-email-assistant-lora")
    assert state["status"] == "completed", state
    model = ready.http.get("/apis/models/v2/workspaces/default/models/llama-3-2-1b").json()
    (adapter,) = model["adapters"]
    assert (adapter["name"], adapter["enabled"], adapter["lora_config"]) == (
        spec["output"]["name"],
        True,
        {"rank": 8, "alpha": 32},
    )
    assert state["status_details"]["deployment"].startswith("default/sft-deploy-llama-3-2-1b-")


@pytest.mark.usefixtures("small_trainer")
def test_it_shows_what_it_filled_in_and_its_backend_shows_the_rest(ready: Wire) -> None:
    assert short(ready, training={"type": "sft", "peft": {}}, output={"name": "tuned"}).status_code == 201
    spec = ready.http.get(f"{SHORTHAND}/job").json()["spec"]
    assert spec["training"]["peft"] == {"rank": 8, "alpha": 32}
    assert (spec["training"]["learning_rate"], spec["training"]["batch_size"]) == (1e-4, 32)
    assert spec["output"] == {"name": "tuned"}
    canonical = ready.http.get(f"{AUTOMODEL}/job").json()["spec"]
    assert (canonical["batch"]["global_batch_size"], canonical["training"]["lora"]["rank"]) == (32, 8)
    assert canonical["output"]["name"] == "tuned"


@pytest.mark.usefixtures("small_trainer")
def test_its_list_has_the_jobs_of_every_backend_each_as_it_was_asked_for(ready: Wire) -> None:
    dialect = {"model": "llama-3-2-1b", "dataset": {"training": "email-training-data"}, "training": {}}
    ready.http.post(AUTOMODEL, json={"name": "ours", "spec": dialect})
    dora = {"type": "sft", "peft": {"use_dora": False}, "batch_size": 4}
    short(ready, "theirs", training=dora)
    shown = {job["name"]: job["spec"] for job in ready.http.get(SHORTHAND).json()["data"]}
    assert (shown["ours"]["batch"]["global_batch_size"], shown["theirs"]["training"]["batch_size"]) == (8, 4)
    assert "batch" not in shown["theirs"]
    assert ready.http.get(f"{SHORTHAND}/ours").json()["spec"]["output"]["type"] == "adapter"


@pytest.mark.usefixtures("small_trainer")
def test_status_log_cancel_and_delete(wire: Wire) -> None:
    wire.model("llama-3-2-1b")
    wire.dataset("email-training-data", behaviour="hang")
    short(wire)
    eventually(lambda: wire.http.get(f"{SHORTHAND}/job/status").json()["status_details"].get("step"), "the first step")
    lines = wire.http.get(f"{SHORTHAND}/job/logs").json()["data"]
    assert any(line["message"].startswith("step 1") for line in lines)
    assert wire.http.post(f"{SHORTHAND}/job/cancel").json()["status"] == "cancelling"
    wire.wait()
    assert wire.http.delete(f"{SHORTHAND}/job").status_code == 204
    for path in ("", "/status", "/logs"):
        assert wire.http.get(f"{SHORTHAND}/job{path}").status_code == 404
    assert wire.http.post(f"{SHORTHAND}/job/cancel").status_code == 404
    assert wire.http.delete(f"{SHORTHAND}/job").status_code == 404


@pytest.mark.usefixtures("small_trainer")
def test_custom_fields_stand_in_the_spec_or_beside_it(ready: Wire) -> None:
    ready.dataset("slow", behaviour="hang")
    short(ready, "first", dataset="slow")
    beside = {"custom_fields": {"team": "b"}, "description": "ours"}
    made = short(ready, beside=beside, custom_fields={"priority": 7, "team": "a"}).json()
    assert made["custom_fields"] == {"priority": 7, "team": "b"}
    assert made["description"] == "ours"
    wrong = short(ready, "third", custom_fields={"priority": "high"})
    assert wrong.status_code == 422
    assert "custom_fields.priority" in wrong.text
    ready.http.post(f"{SHORTHAND}/first/cancel")


@pytest.mark.usefixtures("small_trainer")
def test_an_idempotency_key_answers_with_the_first_job(ready: Wire) -> None:
    body = {
        "spec": {"model": "llama-3-2-1b", "dataset": "email-training-data", "training": {"type": "sft", "peft": {}}}
    }
    first, again = (ready.http.post(SHORTHAND, json=body, headers={"Idempotency-Key": "1"}).json() for _ in range(2))
    assert first["id"] == again["id"]
    assert first["spec"] == again["spec"]


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"training": {"type": "grpo"}}, "spec.training.type", "it must be sft, distillation or dpo"),
        ({"training": {"type": "sft", "peft": {"colour": 1}}}, "spec.training.peft.colour", "there is no such field"),
        ({"training": {"type": "sft", "peft": {"rank": 999}}}, "spec.training.peft.rank", "from 1 to 256"),
        ({"training": {"type": "sft", "peft": {"alpha": 0}}}, "spec.training.peft.alpha", "greater than 0"),
        (
            {"training": {"type": "sft", "peft": {"target_modules": ["q", 1]}}},
            "spec.training.peft.target_modules.1",
            "valid string",
        ),
        ({"training": {"type": "sft", "epochs": "many"}}, "spec.training.epochs", "valid integer"),
        ({"training": {"type": "sft", "peft": {}, "batch_size": 0}}, "spec.training.batch_size", "greater than 0"),
        (
            {"training": {"type": "sft", "peft": {}, "batch_size": 10, "micro_batch_size": 4}},
            "",
            "spec.training.batch_size (10) must be divisible by micro_batch_size (4)",
        ),
        (
            {"training": {"type": "sft", "parallelism": {"tensor_parallel_size": 3}}},
            "spec.training.parallelism",
            "Total GPUs (1) must be divisible by tensor_parallel_size (3)",
        ),
        ({"training": {"type": "distillation"}}, "spec.training", "teacher_model is required"),
        ({"training": {"type": "dpo", "batch_size": -1}}, "spec.training.batch_size", "greater than 0"),
        ({"dataset": None}, "spec.dataset", "Field required"),
        ({"model": None}, "spec.model", "Field required"),
        ({"model": 7}, "spec.model", "valid string"),
        ({"deployment_config": {"lora_enabled": False}}, "", "deployment_config.lora_enabled must be true"),
        ({"integrations": {"wandb": {"colour": 1}}}, "spec.integrations.wandb.colour", "not permitted"),
        ({"colour": "red"}, "spec.colour", "there is no such field"),
        ({"training": []}, "spec.training", "must be an object"),
        ({"custom_fields": "none"}, "spec.custom_fields", "must be an object, not none"),
    ],
)
def test_a_broken_rule_names_the_field_as_it_was_sent(
    wire: Wire, changes: dict[str, Any], field: str, message: str
) -> None:
    answer = short(wire, **changes)
    assert answer.status_code == 422, answer.text
    (wrong,) = answer.json()["detail"]
    assert ".".join(map(str, wrong["loc"])) == f"body.{field}".rstrip(".")
    assert message in wrong["msg"]
    assert set(wrong) >= {"type", "loc", "msg", "input"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "default/none"}, "spec.model: Model entity not found: 'default/none'"),
        ({"dataset": "fileset://default/none"}, "spec.dataset: Dataset fileset 'none' not found"),
        ({"dataset": "hf://datasets/x/y"}, "spec.dataset: 'hf://datasets/x/y' is not a fileset"),
        (
            {"training": {"type": "sft", "peft": {"target_modules": ["w"]}}},
            "spec.training.peft.target_modules: 'w' matches no linear layer",
        ),
        (
            {"training": {"type": "sft", "peft": {}, "precision": "fp8"}},
            "spec.training.precision: fp8 is not built yet",
        ),
        (
            {"training": {"type": "sft", "peft": {"quantization": {}, "target_modules": ["q_proj"]}}},
            "spec.training.peft.quantization.precision: true is not built yet",
        ),
        (
            {
                "training": {"type": "sft", "peft": {"use_dora": True, "target_modules": ["q_proj"]}},
                "deployment_config": {"gpu": 0},
            },
            "plain LoRA adapters, not one with spec.training.peft.use_dora",
        ),
        ({"deployment_config": "none"}, "deployment_config references 'none' which does not exist in workspace"),
        ({"output": {"name": "My_Out"}}, "spec.output.name: 'My_Out' is not a lawful name"),
    ],
)
def test_a_rule_of_model_data_or_engine_names_it_too(ready: Wire, changes: dict[str, Any], message: str) -> None:
    answer = short(ready, **changes)
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["detail"]
    assert ready.http.get(ADAPTERS).json()["data"] == []


def test_a_name_that_is_taken_is_a_conflict(ready: Wire) -> None:
    answer = short(ready, output={"name": "email-training-data"})
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("spec.output.name: A fileset 'default/email-training-data' exists")
    assert answer.headers["x-should-retry"] == "false"
