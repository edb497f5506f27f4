"""Filesets and files over the wire."""

from __future__ import annotations

import pytest

from tests.live import FILES, LiveServer, Wire


def test_a_new_fileset_answers_200_with_every_key_the_strict_client_needs(live: LiveServer) -> None:
    answer = live.http.post(FILES, json={"name": "rows", "purpose": "dataset"})
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("id").startswith("fileset-")
    assert body.pop("created_at") == body.pop("updated_at")
    assert body.pop("storage")["type"] == "local"
    assert body == {
        "name": "rows",
        "workspace": "default",
        "description": "",
        "purpose": "dataset",
        "metadata": {"dataset": None, "model": None},
        "custom_fields": {},
        "project": "",
    }
    assert live.http.get(f"{FILES}/rows").json()["name"] == "rows"


@pytest.mark.parametrize("name", ["Upper", "1abc", "a", "a--b", "ab-", "a" * 64, "a/b", "é", ""])
def test_an_unlawful_name_is_422_and_nothing_is_stored(live: LiveServer, name: str) -> None:
    answer = live.http.post(FILES, json={"name": name})
    assert answer.status_code == 422, answer.text
    assert "name" in answer.text
    assert live.http.get(FILES).json()["pagination"]["total_results"] == 0


def test_a_twin_is_409_and_not_to_be_retried(live: LiveServer) -> None:
    live.http.post(FILES, json={"name": "rows"})
    answer = live.http.post(FILES, json={"name": "rows"})
    assert (answer.status_code, answer.json()) == (409, {"detail": "Fileset 'default/rows' already exists"})
    assert answer.headers["x-should-retry"] == "false"


def test_unknown_keys_and_workspaces_are_refused(live: LiveServer) -> None:
    unknown = live.http.post(FILES, json={"name": "rows", "colour": "red"})
    assert (unknown.status_code, unknown.json()["detail"][0]["type"]) == (422, "extra_forbidden")
    assert unknown.json()["detail"][0]["loc"] == ["body", "colour"]
    nowhere = live.http.post(FILES.replace("default", "nowhere"), json={"name": "rows"})
    assert nowhere.status_code == 422
    assert nowhere.json()["detail"] == "Workspace 'nowhere' does not exist. Please create the workspace first."
    assert live.http.get(FILES.replace("default", "nowhere")).status_code == 404


def test_pages_follow_each_other_and_end(live: LiveServer) -> None:
    for i in range(5):
        live.http.post(FILES, json={"name": f"f{i}"})
    names = []
    for page in (1, 2, 3, 4):
        body = live.http.get(FILES, params={"page": page, "page_size": 2, "sort": "name"}).json()
        names += [item["name"] for item in body["data"]]
        assert body["pagination"]["total_pages"] == 3
        assert body["sort"] == "name"
    assert names == ["f0", "f1", "f2", "f3", "f4"]
    assert live.http.get(FILES).json()["data"][0]["name"] == "f4"
    for bad in ({"page": 0}, {"page_size": 0}, {"page_size": 1001}, {"page": 10**18}, {"colour": "red"}):
        assert live.http.get(FILES, params=bad).status_code == 422, bad
    assert live.http.get(FILES, params={"sort": "colour"}).status_code == 422


def test_each_field_that_is_given_is_replaced_whole_and_the_others_stay(live: LiveServer) -> None:
    tools = {"model": {"tool_calling": {"chat_template": "{{ x }}"}}}
    first = {"name": "rows", "description": "old", "purpose": "dataset", "custom_fields": {"a": 1, "b": 2}}
    made = live.http.post(FILES, json={**first, "metadata": {"dataset": {"schema": {"type": "object"}}}}).json()
    changed = live.http.patch(f"{FILES}/rows", json={"metadata": tools, "custom_fields": {"a": 3}}).json()
    assert changed["metadata"]["dataset"] is None
    assert changed["metadata"]["model"]["tool_calling"]["chat_template"] == "{{ x }}"
    assert (changed["custom_fields"], changed["description"], changed["purpose"]) == ({"a": 3}, "old", "dataset")
    assert changed["updated_at"] > made["updated_at"] == made["created_at"] == changed["created_at"]
    plain = live.http.patch(f"{FILES}/rows", json={"description": None, "metadata": None, "custom_fields": None}).json()
    assert (plain["description"], plain["custom_fields"]) == ("", {})
    assert plain["metadata"] == {"dataset": None, "model": None}
    assert live.http.get(f"{FILES}/rows").json() == plain


def test_a_change_of_nothing_changes_nothing(live: LiveServer) -> None:
    secrets = "/apis/secrets/v2/workspaces/default/secrets"
    live.http.post(FILES, json={"name": "rows"})
    live.http.post(secrets, json={"name": "token", "value": "x"})
    for thing in (f"{FILES}/rows", f"{secrets}/token"):
        assert live.http.patch(thing, json={}).json() == live.http.get(thing).json()
        assert live.http.get(thing).json()["updated_at"] == live.http.get(thing).json()["created_at"]


def test_a_change_of_a_missing_fileset_or_of_an_unknown_field_is_refused(live: LiveServer) -> None:
    assert live.http.patch(f"{FILES}/rows", json={"description": "x"}).status_code == 404
    live.http.post(FILES, json={"name": "rows"})
    for wrong in ({"name": "other"}, {"storage": None}, {"description": "x" * 256}, {"purpose": "fun"}):
        assert live.http.patch(f"{FILES}/rows", json=wrong).status_code == 422, wrong
    assert live.http.post(FILES, json={"name": "long", "description": "x" * 256}).status_code == 422


def test_a_deleted_fileset_is_answered_once_more_and_gone(wire: Wire) -> None:
    wire.fileset("rows", {"f": b"1"})
    answer = wire.http.delete(f"{FILES}/rows")
    assert (answer.status_code, answer.json()["name"]) == (200, "rows")
    again = wire.http.delete(f"{FILES}/rows")
    assert (again.status_code, again.json()["detail"]) == (404, "Fileset 'rows' not found in workspace 'default'")
    wire.fileset("rows", {})
    assert wire.http.get(f"{FILES}/rows/files").json() == {"data": []}


def test_nobody_asks_for_local_storage_or_marks_a_fileset_as_a_service(live: LiveServer) -> None:
    local = live.http.post(FILES, json={"name": "rows", "storage": {"type": "local", "path": "/etc"}})
    assert local.status_code == 400
    assert local.json()["detail"] == (
        "Creating filesets with local storage is not allowed. Use NGC, HuggingFace, or omit storage to use the "
        "default backend."
    )
    marked = live.http.post(FILES, json={"name": "rows", "custom_fields": {"service_source": "x", "team": "y"}})
    assert marked.json()["custom_fields"] == {"team": "y"}
    again = live.http.patch(f"{FILES}/rows", json={"custom_fields": {"service_source": "x"}})
    assert again.json()["custom_fields"] == {}


def test_a_project_is_stored_and_filtered_by(live: LiveServer) -> None:
    projects = "/apis/entities/v2/workspaces/default/projects"
    assert live.http.post(projects, json={"name": "support"}).status_code == 201
    assert live.http.post(FILES, json={"name": "a1", "project": "nothing"}).status_code == 422
    assert live.http.post(FILES, json={"name": "a1", "project": "support"}).json()["project"] == "support"
    live.http.post(FILES, json={"name": "a2"})
    found = live.http.get(FILES, params={"filter[project]": "support"}).json()["data"]
    assert [each["name"] for each in found] == ["a1"]
    assert live.http.patch(f"{FILES}/a1", json={"project": ""}).json()["project"] == ""


def test_lists_are_narrowed_by_purpose_storage_and_custom_fields(live: LiveServer) -> None:
    live.http.post(FILES, json={"name": "a1", "purpose": "dataset", "custom_fields": {"team": "x"}})
    live.http.post(FILES, json={"name": "a2", "purpose": "model"})

    def found(**params: str) -> list[str]:
        return sorted(each["name"] for each in live.http.get(FILES, params=params).json()["data"])

    assert found(**{"filter[purpose]": "model"}) == ["a2"]
    assert found(**{"filter[storage_type]": "local"}) == ["a1", "a2"]
    assert found(**{"filter[storage_type]": "huggingface"}) == []
    assert found(**{"filter[custom_fields.team]": "x"}) == ["a1"]
    assert live.http.get(FILES, params={"filter[colour]": "x"}).status_code == 400
