"""Bad jobs are refused at the door, with the field, the value and the way out, and nothing is stored."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live import AUTOMODEL, FILES, JOBS, MODELS, Wire, checkpoint

UNSLOTH = AUTOMODEL.replace("automodel", "unsloth")


@pytest.fixture
def ready(wire: Wire) -> Wire:
    """A user who has a model and a data set."""
    wire.model()
    wire.dataset()
    return wire


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "missing"},
            "spec.model: Model entity not found: 'default/missing'. Verify the model entity exists.",
        ),
        ({"model": "a/b/c"}, "spec.model: invalid entity reference 'a/b/c'; expected 'name' or 'workspace/name'"),
        ({"dataset": {"training": "gone"}}, "spec.dataset.training: Dataset fileset 'gone' not found in workspace"),
        ({"dataset": {"training": "hf://x/y"}}, "'hf://x/y' is not a fileset"),
        ({"dataset": {"training": "empty"}}, "fileset 'default/empty' has no files; upload a .jsonl file"),
        ({"dataset": {"training": "rows", "validation": "gone"}}, "spec.dataset.validation: Dataset fileset 'gone'"),
        ({"output": {"name": "My_Out"}}, "spec.output.name: 'My_Out' is not a lawful name: 2 to 63 characters"),
        (
            {"training": {"lora": {"target_modules": ["w"]}}},
            "training.lora.target_modules: 'w' matches no linear layer",
        ),
        ({"training": {"precision": "fp8"}}, "training.precision: fp8 is not built yet; use null or bf16 or fp16"),
    ],
)
def test_rules_beyond_the_grammar(ready: Wire, changes: dict[str, Any], message: str) -> None:
    ready.fileset("empty", {})
    answer = ready.submit(**changes)
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["detail"]
    assert ready.http.get(JOBS).json()["data"] == []


@pytest.mark.parametrize(
    ("changes", "loc", "type_"),
    [
        ({"colour": "red"}, ["body", "spec", "colour"], "extra_forbidden"),
        ({"training": {"lora": {"r": 8}}}, ["body", "spec", "training", "lora", "r"], "extra_forbidden"),
        ({"training": {"lora": {"rank": 0}}}, ["body", "spec", "training", "lora", "rank"], "greater_than"),
        ({"output": {}}, ["body", "spec", "output", "name"], "missing"),
        ({"output": {"name": "x", "type": "adapter"}}, ["body", "spec", "output", "type"], "extra_forbidden"),
        ({"batch": {"global_batch_size": 10, "micro_batch_size": 4}}, ["body", "spec"], "value_error"),
        ({"optimizer": {"optimizer": "Lion"}}, ["body", "spec", "optimizer", "optimizer"], "literal_error"),
    ],
)
def test_rules_of_the_grammar(ready: Wire, changes: dict[str, Any], loc: list[str], type_: str) -> None:
    answer = ready.submit(**changes)
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert (problem["loc"], problem["type"]) == (loc, type_)


def test_a_field_of_another_backend_is_refused_with_what_it_is_called_here(ready: Wire) -> None:
    (problem,) = ready.submit(batch={"per_device_train_batch_size": 2}).json()["detail"]
    assert problem["msg"] == "batch.per_device_train_batch_size is unsloth's; here it is batch.micro_batch_size"


@pytest.mark.parametrize("name", ["Job", "a" * 52, "a"])
def test_job_names_leave_room_for_what_is_made_of_them(ready: Wire, name: str) -> None:
    answer = ready.submit(name)
    assert answer.status_code == 422
    assert "2 to 51 characters" in answer.json()["detail"]


def test_a_job_that_does_not_exist_is_404(wire: Wire) -> None:
    for path in (f"{JOBS}/none", f"{JOBS}/none/status", f"{JOBS}/none/logs", f"{AUTOMODEL}/none"):
        answer = wire.http.get(path)
        assert (answer.status_code, answer.json()["detail"]) == (404, "Job 'none' not found in workspace 'default'.")
    assert wire.http.post(f"{JOBS}/none/cancel").status_code == 404


def test_fields_without_a_meaning_here_are_warned_about_in_the_answer(ready: Wire) -> None:
    answer = ready.submit(training={"distillation_ratio": 0.9, "max_seq_length": 4096})
    assert answer.status_code == 201
    assert answer.json()["status_details"]["warnings"] == [
        "training.max_seq_length (4096) is above the model's context (128); rows are cut at 128 tokens",
        "training.distillation_ratio: has no meaning for training_type 'sft' and is not used",
    ]
    ready.http.post(f"{JOBS}/job/cancel")


@pytest.mark.usefixtures("small_trainer")
def test_an_adapter_is_registered_with_the_rank_and_alpha_of_its_files(ready: Wire) -> None:
    lora = {"target_modules": ["q_proj"], "rank": 2, "alpha": 6, "init_lora_weights": "pissa"}
    spec = {
        "model": {"name": "base", "load_in_4bit": False},
        "dataset": {"path": "rows"},
        "training": {"lora": lora},
        "optimizer": {"optim": "adamw_torch"},
        "output": {"name": "started-from-its-base"},
    }
    answer = ready.http.post(UNSLOTH, json={"name": "job", "spec": spec})
    assert answer.status_code == 201, answer.text
    assert ready.wait()["status"] == "completed"
    (adapter,) = ready.http.get(f"{MODELS}/base").json()["adapters"]
    assert adapter["name"] == "started-from-its-base"
    assert adapter["lora_config"] == {"rank": 4, "alpha": 12}


def test_the_answer_shows_the_spec_as_it_will_run(ready: Wire) -> None:
    spec = ready.submit().json()["spec"]
    assert spec["training"]["lora"]["rank"] == 16
    output = spec["output"]
    assert output["type"] == "adapter"
    assert output["name"] == output["fileset"]
    assert output["name"].startswith("base-rows-")
    ready.http.post(f"{JOBS}/job/cancel")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({}, "has no files"),
        ({"model.gguf": b"GGUF"}, "has no *.safetensors at its root; GGUF files cannot be fine-tuned"),
        ({**checkpoint(), "model.safetensors": b"nonsense"}, "model.safetensors: not a safetensors file"),
        ({**checkpoint(), "config.json": b"[]"}, "config.json: must be a JSON object"),
        ({**checkpoint(), "config.json": b"{"}, "config.json: not JSON"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_is_visible_and_its_jobs_are_refused(
    wire: Wire, broken: dict[str, bytes], why: str
) -> None:
    wire.dataset()
    model = wire.model(files=broken)
    assert model["spec"] is None
    assert model["custom_fields"]["spec_status"] == "failed"
    assert why in model["custom_fields"]["spec_error"]
    answer = wire.submit()
    assert answer.status_code == 422
    assert why in answer.json()["detail"]


def test_a_checkpoint_that_came_after_its_model_is_read_when_a_job_wants_it(wire: Wire) -> None:
    wire.dataset()
    assert wire.model(files={})["spec"] is None
    for path, content in checkpoint().items():
        wire.http.put(f"{FILES}/base/-/{path}", content=content)
    assert wire.submit().status_code == 201
    wire.http.post(f"{JOBS}/job/cancel")


def test_a_base_without_tokenizer_json_has_a_spec_but_no_jobs(wire: Wire) -> None:
    wire.dataset()
    files = {path: content for path, content in checkpoint().items() if path != "tokenizer.json"}
    assert wire.model(files=files)["spec"]["family"] == "llama"
    answer = wire.submit()
    assert answer.status_code == 422
    assert "has no tokenizer.json at its root" in answer.json()["detail"]


def test_a_model_shows_what_its_checkpoint_says(wire: Wire) -> None:
    spec = wire.model()["spec"]
    assert (spec["family"], spec["num_layers"], spec["context_size"]) == ("llama", 2, 128)
    assert spec["base_num_parameters"] == 64 * 8 + 8 + 8 * 8 * 8
    assert spec["linear_layers"] is None
    verbose = wire.http.get(f"{MODELS}/base", params={"verbose": True}).json()["spec"]["linear_layers"]
    assert verbose[0] == {"name": "model.layers.0.self_attn.k_proj", "in_features": 8, "out_features": 8}
    assert len(verbose) == 8


def test_a_model_over_a_fileset_that_does_not_exist_is_400(wire: Wire) -> None:
    answer = wire.http.post(MODELS, json={"name": "base", "fileset": "default/none"})
    assert (answer.status_code, answer.json()["detail"]) == (
        400,
        "Fileset 'default/none' not found in workspace 'default'",
    )
