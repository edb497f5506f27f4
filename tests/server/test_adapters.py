"""Adapters over the wire: by hand from external weights, enabled, changed, deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live import ADAPTERS, FILES, MODELS, Wire, adapter_files, checkpoint, safetensors

NESTED = f"{MODELS}/base/adapters"
ASKED = {"name": "tuned", "fileset": "weights", "finetuning_type": "lora"}


@pytest.fixture
def ready(wire: Wire) -> Wire:
    """A user who has a model, and an adapter's files."""
    wire.model()
    wire.fileset("weights", adapter_files())
    return wire


def test_an_adapter_by_hand_takes_rank_and_alpha_from_its_files(ready: Wire) -> None:
    answer = ready.http.post(NESTED, json=ASKED)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body.pop("created_at") == body.pop("updated_at")
    assert body == {
        "name": "tuned",
        "workspace": "default",
        "project": None,
        "description": None,
        "fileset": "default/weights",
        "finetuning_type": "lora",
        "enabled": True,
        "lora_config": {"rank": 4, "alpha": 8},
        "model": "default/base",
    }
    top = ready.http.post(ADAPTERS, json={**ASKED, "name": "second", "model": "default/base", "enabled": False})
    assert (top.status_code, top.json()["enabled"]) == (201, False)
    assert [each["name"] for each in ready.http.get(f"{MODELS}/base").json()["adapters"]] == ["tuned", "second"]


def test_a_fraction_as_alpha_stays_one(ready: Wire) -> None:
    ready.fileset("half", adapter_files(lora_alpha=2.5))
    created = ready.http.post(NESTED, json={**ASKED, "fileset": "half", "lora_config": {"rank": 4, "alpha": 2.5}})
    assert created.status_code == 201, created.text
    assert ready.http.get(f"{ADAPTERS}/tuned").json()["lora_config"] == {"rank": 4, "alpha": 2.5}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"rank": 8}, "lora_config.rank (8) is not what adapter_config.json says (r = 4)"),
        ({"rank": 4, "alpha": 16}, "lora_config.alpha (16) is not what adapter_config.json says (lora_alpha = 8)"),
        ({"rank": 0}, "rank"),
        ({"alpha": 8}, "rank"),
    ],
)
def test_what_contradicts_the_files_is_refused_with_both_values(ready: Wire, given: dict[str, int], why: str) -> None:
    answer = ready.http.post(NESTED, json={**ASKED, "lora_config": given})
    assert answer.status_code == 422
    assert why in answer.text


LONE = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": [4, 8]}
EMBEDDING = {**LONE, "base_model.model.model.embed_tokens.lora_embedding_A": [4, 64]}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"adapter_config.json": adapter_files()["adapter_config.json"]}, "has no adapter_model.safetensors"),
        (
            {"adapter_config.json": adapter_files()["adapter_config.json"], "adapter_model.bin": b"x"},
            "adapter_model.bin is a pickle",
        ),
        ({f"a/{path}": content for path, content in adapter_files().items()}, "there is a/adapter_config.json"),
        (checkpoint(), "has no adapter_config.json"),
        ({**adapter_files(), "adapter_config.json": b"{"}, "adapter_config.json is not JSON"),
        ({**adapter_files(), "adapter_config.json": b"[]"}, "adapter_config.json is not a JSON object"),
        (adapter_files(peft_type="IA3"), "peft_type ('IA3') is not supported"),
        (adapter_files(use_dora=True), "use_dora ('True') is not supported"),
        (adapter_files(modules_to_save=["lm_head"]), "modules_to_save"),
        (adapter_files(r="4"), "r (4) must be a whole number"),
        (adapter_files(r=10**30), "r (1000000"),
        (adapter_files(lora_alpha=0), "lora_alpha (0) must be a number above 0"),
        (adapter_files(lora_alpha=None), "lora_alpha (None)"),
        ({**adapter_files(), "adapter_model.safetensors": b"nonsense"}, "not a safetensors file"),
        ({**adapter_files(), "adapter_model.safetensors": safetensors({})}, "is empty"),
        ({**adapter_files(), "adapter_model.safetensors": safetensors(LONE)}, "only one half"),
        ({**adapter_files(), "adapter_model.safetensors": safetensors(EMBEDDING)}, "lora_embedding_A"),
        ({**adapter_files(rank=4), "adapter_config.json": adapter_files(rank=8)["adapter_config.json"]}, "r = 8"),
        (
            adapter_files(hidden=16),
            "maps 16 inputs to 16 outputs at model.layers.0.self_attn.k_proj, where default/base has 8 and 8",
        ),
        (adapter_files(layers=3), "changes model.layers.2.self_attn.k_proj, which is no linear layer of default/base"),
    ],
)
def test_files_that_could_not_be_served_are_refused_by_name(wire: Wire, files: dict[str, bytes], why: str) -> None:
    wire.model()
    wire.fileset("weights", files)
    answer = wire.http.post(NESTED, json=ASKED)
    assert answer.status_code == 422, answer.text
    assert why in answer.json()["detail"]
    assert wire.http.get(ADAPTERS).json()["data"] == []


def test_rank_stabilised_adapters_are_served_and_so_taken(ready: Wire) -> None:
    ready.fileset("stable", adapter_files(use_rslora=True))
    assert ready.http.post(NESTED, json={**ASKED, "fileset": "stable"}).status_code == 201


@pytest.mark.parametrize(
    ("change", "status", "why"),
    [
        ({"fileset": "none"}, 400, "Fileset 'default/none' not found in workspace 'default'"),
        ({"fileset": "empty"}, 400, "Fileset default/empty, exists but is empty"),
        ({"fileset": ""}, 422, "fileset"),
        ({"finetuning_type": "all_weights"}, 422, "'all_weights' leaves no plain LoRA adapter"),
        ({"finetuning_type": "magic"}, 422, "finetuning_type"),
        ({"name": "Tuned"}, 422, "not a lawful name"),
        ({"name": "base"}, 409, "A model 'default/base' exists"),
        ({"project": "none"}, 422, "'none' is not a project"),
        ({"colour": "red"}, 422, "colour"),
    ],
)
def test_unlawful_requests_are_refused(ready: Wire, change: dict[str, Any], status: int, why: str) -> None:
    ready.fileset("empty", {})
    answer = ready.http.post(NESTED, json={**ASKED, **change})
    assert answer.status_code == status, answer.text
    assert why in answer.text


def test_names_are_unique_in_a_workspace_and_not_under_a_model(ready: Wire) -> None:
    ready.model("other")
    assert ready.http.post(NESTED, json=ASKED).status_code == 201
    for where in (NESTED, f"{MODELS}/other/adapters"):
        twin = ready.http.post(where, json=ASKED)
        assert twin.status_code == 409
        assert twin.json()["detail"] == "Model adapter already exists: default/base/tuned"
        assert twin.headers["x-should-retry"] == "false"
    model = ready.http.post(MODELS, json={"name": "tuned"})
    assert model.status_code == 409
    assert "An adapter 'default/tuned' exists" in model.json()["detail"]


def test_an_adapter_is_changed_only_through_its_own_model(ready: Wire) -> None:
    ready.model("other")
    ready.http.post(NESTED, json=ASKED)
    changed = ready.http.patch(f"{NESTED}/tuned", json={"enabled": False, "description": "mine"})
    assert (changed.status_code, changed.json()["enabled"]) == (200, False)
    kept = ready.http.patch(f"{ADAPTERS}/tuned", json={"enabled": None, "description": None})
    assert (kept.json()["enabled"], kept.json()["description"]) == (False, "mine")
    for method in ("PATCH", "DELETE"):
        wrong = ready.http.request(method, f"{MODELS}/other/adapters/tuned", json={})
        assert wrong.status_code == 404
        assert wrong.json()["detail"] == ("Adapter tuned with workspace 'default' and model name 'other' not found")
        assert ready.http.request(method, f"{MODELS}/none/adapters/tuned", json={}).status_code == 404
        assert ready.http.request(method, f"{ADAPTERS}/none", json={}).status_code == 404


def test_other_weights_bring_their_own_rank(ready: Wire) -> None:
    ready.http.post(NESTED, json=ASKED)
    ready.fileset("wider", adapter_files(rank=8, lora_alpha=32))
    ready.fileset("foreign", adapter_files(hidden=16))
    changed = ready.http.patch(f"{ADAPTERS}/tuned", json={"fileset": "wider"}).json()
    assert (changed["fileset"], changed["lora_config"]) == ("default/wider", {"rank": 8, "alpha": 32})
    refused = ready.http.patch(f"{NESTED}/tuned", json={"fileset": "foreign"})
    assert refused.status_code == 422
    assert ready.http.get(f"{ADAPTERS}/tuned").json() == changed


def test_adapters_are_deleted_either_way_and_read_only_at_the_top(ready: Wire) -> None:
    for name in ("one", "two"):
        ready.http.post(NESTED, json={**ASKED, "name": name})
    assert ready.http.get(f"{NESTED}/one").status_code == 405
    assert ready.http.get(NESTED).status_code == 405
    assert ready.http.delete(f"{NESTED}/one").status_code == 204
    assert ready.http.delete(f"{ADAPTERS}/two").status_code == 204
    gone = ready.http.get(f"{ADAPTERS}/two")
    assert (gone.status_code, gone.json()["detail"]) == (404, "Adapter 'two' not found in workspace 'default'")
    assert ready.http.get(f"{FILES}/weights").status_code == 200


def test_missing_models_are_404_whichever_way_they_are_named(ready: Wire) -> None:
    for answer in (
        ready.http.post(f"{MODELS}/none/adapters", json=ASKED),
        ready.http.post(ADAPTERS, json={**ASKED, "model": "default/none"}),
    ):
        assert answer.status_code == 404
        assert answer.json()["detail"] == "Model with workspace 'default' and name 'none' not found"


def test_a_base_that_says_nothing_about_its_layers_takes_any_adapter(ready: Wire) -> None:
    ready.http.post(MODELS, json={"name": "elsewhere", "api_endpoint": {"url": "http://host"}})
    assert ready.http.post(f"{MODELS}/elsewhere/adapters", json=ASKED).status_code == 201


def test_lists_are_narrowed(ready: Wire) -> None:
    ready.http.post(NESTED, json={**ASKED, "name": "on", "description": "first"})
    ready.http.post(NESTED, json={**ASKED, "name": "off", "enabled": False, "finetuning_type": "dpo"})

    def names(**query: Any) -> list[str]:
        return [each["name"] for each in ready.http.get(ADAPTERS, params={"sort": "name", **query}).json()["data"]]

    for query, expected in (
        ({}, ["off", "on"]),
        ({"filter[enabled]": "false"}, ["off"]),
        ({"filter[enabled]": "true"}, ["on"]),
        ({"filter[model]": "base"}, ["off", "on"]),
        ({"filter[model]": "default/base"}, ["off", "on"]),
        ({"filter[model]": "other"}, []),
        ({"filter[model][$in]": "x,base"}, ["off", "on"]),
        ({"filter[model][$nin]": "base"}, []),
        ({"filter[model][$nin]": "other"}, ["off", "on"]),
        ({"filter[model][$like]": "bas"}, ["off", "on"]),
        ({"filter[model]": ""}, []),
        ({"filter[fileset]": "default/weights"}, ["off", "on"]),
        ({"filter[fileset]": "weights"}, ["off", "on"]),
        ({"filter[fileset]": "default"}, []),
        ({"filter[finetuning_type]": "dpo"}, ["off"]),
        ({"filter[description][$like]": "FIRST"}, ["on"]),
        ({"filter[lora_config.rank][$gte]": "5"}, []),
    ):
        assert names(**query) == expected, query
    for unordered in ("filter[enabled][$gt]", "filter[enabled][$lte]"):
        answer = ready.http.get(ADAPTERS, params={unordered: "true"})
        assert (answer.status_code, "no order" in answer.text) == (400, True)
    page = ready.http.get(ADAPTERS, params={"filter[model]": "base"}).json()
    assert page["filter"] == {"model": {"$eq": "base"}}
    assert json.dumps(page).count("null") == 0
