"""Model entities over the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.live import FILES, MODELS, LiveServer, Wire, adapter_files, checkpoint, settings
from tunesmith.settings import Settings

SPEC: dict[str, Any] = {
    "checkpoint_model_name": "LlamaForCausalLM",
    "family": "llama",
    "num_layers": 2,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_kv_heads": 1,
    "ffn_hidden_size": 16,
    "vocab_size": 64,
    "tied_embeddings": True,
    "gated_mlp": True,
    "base_num_parameters": 1032,
    "precision": "bfloat16",
}


def create(live: LiveServer, name: str, **fields: Any) -> dict[str, Any]:
    answer = live.http.post(MODELS, json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def names(live: LiveServer, **query: Any) -> list[str]:
    answer = live.http.get(MODELS, params={"sort": "name", **query})
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json()["data"]]


def test_a_model_answers_every_field_and_keeps_what_it_was_given(live: LiveServer) -> None:
    live.http.post(FILES, json={"name": "files"})
    given = {
        "description": "mine",
        "base_model": "not/checked",
        "finetuning_type": "lora_merged",
        "api_endpoint": {"url": "http://host/v1", "model_id": "m", "api_key": None, "format": None},
        "backend_format": "OPENAI_CHAT",
        "prompt": {"system_prompt": "Be brief.", "inference_params": {"temperature": 0.5, "top_k": 3}},
        "custom_fields": {"team": "blue"},
        "ownership": {"created_by": "me"},
        "model_providers": ["default/elsewhere"],
    }
    body = create(live, "mine", spec=SPEC, fileset="files", **given)
    assert body["id"].startswith("model-")
    assert body["created_at"] == body["updated_at"]
    assert (body["workspace"], body["project"], body["adapters"]) == ("default", None, [])
    assert (body["fileset"], body["trust_remote_code"]) == ("files", False)
    assert body["custom_fields"] == {"team": "blue", "spec_status": "given"}
    assert body["prompt"]["inference_params"]["top_k"] == 3
    for field in ("description", "base_model", "finetuning_type", "api_endpoint", "backend_format", "model_providers"):
        assert body[field] == given[field]
    assert {**body["spec"], **SPEC} == body["spec"]
    assert live.http.get(f"{MODELS}/mine").json() == body


def test_a_list_drops_nulls_and_a_single_answer_keeps_them(live: LiveServer) -> None:
    create(live, "bare")
    single = live.http.get(f"{MODELS}/bare").json()
    assert single["spec"] is None
    assert single["fileset"] is None
    assert single["custom_fields"] == {}
    page = live.http.get(MODELS).json()
    assert page["sort"] == "created_at"
    assert "filter" not in page
    assert None not in page["data"][0].values()


def test_twins_and_missing_things_are_named(live: LiveServer) -> None:
    create(live, "mine")
    twin = live.http.post(MODELS, json={"name": "mine"})
    assert twin.status_code == 409
    assert twin.json()["detail"] == "Model with workspace 'default' and name 'mine' already exists"
    assert twin.headers["x-should-retry"] == "false"
    for answer in (
        live.http.get(f"{MODELS}/none"),
        live.http.patch(f"{MODELS}/none", json={}),
        live.http.delete(f"{MODELS}/none"),
    ):
        assert answer.status_code == 404
        assert answer.json()["detail"] == "Model with workspace 'default' and name 'none' not found"
    nowhere = live.http.post(MODELS.replace("default", "nowhere"), json={"name": "mine"})
    assert nowhere.status_code == 422


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ({"fileset": "default/none"}, 400, "Fileset 'default/none' not found in workspace 'default'"),
        ({"fileset": ""}, 400, "Fileset reference is required"),
        ({"fileset": "hf://a/b"}, 422, "create a fileset first"),
        ({"fileset": "a/b/c"}, 422, "expected 'name' or 'workspace/name'"),
        ({"spec": {"family": "llama"}}, 422, "num_layers"),
        ({"spec": {**SPEC, "colour": "red"}}, 422, "colour"),
        ({"spec": {**SPEC, "moe_config": {"num_experts": 2, "colour": "red"}}}, 422, "moe_config.colour"),
        ({"finetuning_type": "magic"}, 422, "finetuning_type"),
        ({"backend_format": "SMOKE"}, 422, "backend_format"),
        ({"trust_remote_code": True}, 422, "TUNESMITH_ALLOW_REMOTE_CODE=1"),
        ({"spec": {**SPEC, "tool_call_config": {"tool_call_plugin": "p.py"}}}, 403, "plugins run code"),
        ({"api_endpoint": {"url": "http://host", "api_key": "sk-canary"}}, 422, "api_endpoint.api_key"),
        ({"project": "none"}, 422, "'none' is not a project"),
        ({"description": "x" * 1001}, 422, "description"),
        ({"colour": "red"}, 422, "colour"),
    ],
)
def test_what_a_model_may_not_be_is_refused_and_nothing_is_stored(
    live: LiveServer, body: dict[str, Any], status: int, why: str
) -> None:
    answer = live.http.post(MODELS, json={"name": "mine", **body})
    assert answer.status_code == status, answer.text
    assert why in answer.text
    assert live.http.get(f"{MODELS}/mine").status_code == 404


def test_remote_code_may_be_asked_for_where_the_operator_allows_it(tmp_path: Path) -> None:
    allowed = Settings(data_dir=settings(tmp_path).data_dir, port=0, allow_remote_code=True)
    with LiveServer(allowed) as live:
        assert create(live, "mine", trust_remote_code=True)["trust_remote_code"] is True


def test_a_change_keeps_what_is_absent_or_null(live: LiveServer) -> None:
    before = create(live, "mine", description="old", backend_format="OPENAI_CHAT", custom_fields={"a": 1})
    changed = live.http.patch(f"{MODELS}/mine", json={"description": None, "base_model": "b", "custom_fields": None})
    assert changed.status_code == 200
    body = changed.json()
    assert (body["description"], body["base_model"], body["custom_fields"]) == ("old", "b", {"a": 1})
    assert body["backend_format"] == "OPENAI_CHAT"
    assert body["updated_at"] > before["updated_at"]
    cleared = live.http.patch(f"{MODELS}/mine", json={"backend_format": None, "custom_fields": {"spec_status": "x"}})
    assert (cleared.json()["backend_format"], cleared.json()["custom_fields"]) == (None, {})
    same = live.http.patch(f"{MODELS}/mine", json={})
    assert same.json() == cleared.json()


def test_an_empty_fileset_does_for_a_new_model_and_not_for_a_change(wire: Wire, live: LiveServer) -> None:
    wire.fileset("empty", {})
    create(live, "mine", fileset="fileset://default/empty")
    answer = live.http.patch(f"{MODELS}/mine", json={"fileset": "empty"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Fileset default/empty, exists but is empty")
    required = live.http.patch(f"{MODELS}/mine", json={"fileset": ""})
    assert (required.status_code, required.json()["detail"]) == (400, "Fileset reference is required")
    missing = live.http.patch(f"{MODELS}/mine", json={"fileset": "none"})
    assert missing.status_code == 400


def test_a_deleted_model_takes_its_adapters_along_and_leaves_their_files(wire: Wire, live: LiveServer) -> None:
    wire.model()
    wire.fileset("weights", adapter_files())
    asked = {"name": "tuned", "fileset": "weights", "finetuning_type": "lora"}
    assert live.http.post(f"{MODELS}/base/adapters", json=asked).status_code == 201
    gone = live.http.delete(f"{MODELS}/base")
    assert (gone.status_code, gone.content) == (204, b"")
    assert live.http.get("/apis/models/v2/workspaces/default/adapters/tuned").status_code == 404
    assert live.http.get(f"{FILES}/weights").status_code == 200
    wire.http.post(MODELS, json={"name": "base", "fileset": "base"})
    assert live.http.get(f"{MODELS}/base").json()["adapters"] == []


@pytest.mark.usefixtures("small_trainer")
def test_a_model_that_a_job_trains_is_not_deleted_under_it(wire: Wire) -> None:
    wire.model()
    wire.dataset(behaviour="hang")
    wire.submit()
    refused = wire.http.delete(f"{MODELS}/base")
    assert refused.status_code == 409
    assert "job default/job" in refused.json()["detail"]
    wire.http.post("/apis/jobs/v2/workspaces/default/jobs/job/cancel")
    wire.wait()
    assert wire.http.delete(f"{MODELS}/base").status_code == 204


def test_layers_are_listed_only_when_asked_for(wire: Wire) -> None:
    wire.model()
    for where, one in ((f"{MODELS}/base", False), (MODELS, True)):
        plain, verbose = wire.http.get(where).json(), wire.http.get(where, params={"verbose": True}).json()
        if one:
            plain, verbose = plain["data"][0], verbose["data"][0]
        assert plain["spec"].get("linear_layers") is None
        assert len(verbose["spec"]["linear_layers"]) == 8
    changed = wire.http.patch(f"{MODELS}/base", params={"verbose": True}, json={"description": "x"}).json()
    assert len(changed["spec"]["linear_layers"]) == 8


def test_a_spec_that_is_sent_back_as_it_was_read_keeps_its_layers(wire: Wire) -> None:
    spec = wire.model()["spec"]
    answer = wire.http.patch(f"{MODELS}/base", params={"verbose": True}, json={"spec": {**spec, "context_size": 64}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["spec"]["context_size"] == 64
    assert len(answer.json()["spec"]["linear_layers"]) == 8
    assert answer.json()["custom_fields"]["spec_status"] == "given"


def test_lists_are_narrowed_by_what_a_model_has(wire: Wire, live: LiveServer) -> None:
    wire.model("alpha")
    create(live, "beta", base_model="alpha", finetuning_type="all_weights", prompt={"system_prompt": "x"})
    create(live, "gamma", description="a Grey one", custom_fields={"team": "blue"})
    wire.fileset("weights", adapter_files())
    asked = {"name": "tuned", "fileset": "weights", "finetuning_type": "lora", "enabled": False}
    assert live.http.post(f"{MODELS}/alpha/adapters", json=asked).status_code == 201
    for query, expected in (
        ({"filter[name]": "beta"}, ["beta"]),
        ({"filter[name][$like]": "A"}, ["alpha", "beta", "gamma"]),
        ({"filter[description][$like]": "grey"}, ["gamma"]),
        ({"filter[base_model]": "true"}, ["beta"]),
        ({"filter[base_model]": "false"}, ["alpha", "gamma"]),
        ({"filter[base_model]": "alpha"}, ["beta"]),
        ({"filter[base_model][name]": "alpha"}, ["beta"]),
        ({"filter[fileset]": "alpha"}, []),
        ({"filter[fileset]": "default/alpha"}, ["alpha"]),
        ({"filter[finetuning_type]": "all_weights"}, ["beta"]),
        ({"filter[finetuning_type]": "false"}, ["alpha", "gamma"]),
        ({"filter[prompt]": "true"}, ["beta"]),
        ({"filter[custom_fields][team]": "blue"}, ["gamma"]),
        ({"filter[custom_fields][spec_status]": "completed"}, ["alpha"]),
        ({"filter[spec][family]": "llama"}, ["alpha"]),
        ({"filter[adapters]": "true"}, ["alpha"]),
        ({"filter[adapters]": "false"}, ["beta", "gamma"]),
        ({"filter[adapters][$exists]": "true"}, ["alpha"]),
        ({"filter[adapters][finetuning_type]": "lora"}, ["alpha"]),
        ({"filter[adapters][finetuning_type]": "dora"}, []),
        ({"filter[adapters][enabled]": "false"}, ["alpha"]),
        ({"filter[adapters][enabled]": "true"}, []),
        ({"filter[lora_enabled]": "true"}, []),
        ({"filter[lora_enabled]": "false"}, ["alpha", "beta", "gamma"]),
        ({"filter[workspace]": "system"}, []),
    ):
        assert names(live, **query) == expected, query
    for bad in ({"filter[colour]": "red"}, {"filter[adapters]": "maybe"}, {"filter[lora_enabled][$gt]": "true"}):
        assert live.http.get(MODELS, params=bad).status_code == 400, bad


def test_each_model_of_a_page_has_its_own_adapters(wire: Wire, live: LiveServer) -> None:
    for i in range(3):
        wire.model(f"m{i}", checkpoint())
        wire.fileset(f"w{i}", adapter_files())
        asked = {"name": f"a{i}", "fileset": f"w{i}", "finetuning_type": "lora"}
        assert live.http.post(f"{MODELS}/m{i}/adapters", json=asked).status_code == 201
    page = live.http.get(MODELS, params={"sort": "name"}).json()["data"]
    assert [[adapter["name"] for adapter in model["adapters"]] for model in page] == [["a0"], ["a1"], ["a2"]]
