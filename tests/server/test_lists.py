"""Lists over the wire: pages, orders, filters and their echo, and what is said to a query that cannot be meant."""

from __future__ import annotations

import httpx
import pytest

from tests.live import ADAPTERS, FILES, JOBS, MODELS, Wire

WORKSPACES = "/apis/entities/v2/workspaces"
LISTS = [FILES, MODELS, ADAPTERS, JOBS, WORKSPACES]


def names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json()["data"]]


@pytest.fixture
def files(wire: Wire) -> Wire:
    for name in ("aa", "bb", "cc"):
        wire.fileset(name, {})
    return wire


def test_a_page_says_where_it_stands(files: Wire) -> None:
    answer = files.http.get(FILES, params={"page": 2, "page_size": 2, "sort": "name"}).json()
    assert [each["name"] for each in answer["data"]] == ["cc"]
    assert answer["sort"] == "name"
    assert "filter" not in answer
    assert answer["pagination"] == {
        "page": 2,
        "page_size": 2,
        "current_page_size": 1,
        "total_pages": 2,
        "total_results": 3,
    }


def test_a_page_past_the_end_is_empty(files: Wire) -> None:
    answer = files.http.get(FILES, params={"page": 10**9, "page_size": 2}).json()
    assert answer["data"] == []
    assert answer["pagination"]["total_results"] == 3


UNLAWFUL = [
    ("page=0", "greater_than_equal", "page"),
    ("page=-1", "greater_than_equal", "page"),
    ("page=1000000000000000000", "less_than_equal", "page"),
    ("page=one", "int_parsing", "page"),
    ("page_size=0", "greater_than_equal", "page_size"),
    ("page_size=1001", "less_than_equal", "page_size"),
    ("sort=size", "enum", "sort"),
    ("sort=--name", "enum", "sort"),
    ("sort=name%3B%20drop%20table%20models", "enum", "sort"),
    ("serch=x", "extra_forbidden", "serch"),
    ("filter_name=x", "extra_forbidden", "filter_name"),
]
NOT_UNDERSTOOD = [
    {"filter[nothing]": "x"},
    {"filter[name][$foo]": "x"},
    {"filter": "name ="},
    {"filter": "{"},
    {"filter": '{"name": "\\u0000"}'},
    {"filter": '{"name": "\\ud800"}'},
    {"filter": '{"\\ud800": "x"}'},
    {"filter[name": "x"},
    {"filter[created_at]": "soon"},
    {"filter[name][$or]": "1"},
    {"filter": '{"$and": true}'},
    {"filter": "(" * 10_000},
]


@pytest.mark.parametrize("path", LISTS)
def test_unlawful_pages_and_orders_are_422(wire: Wire, path: str) -> None:
    for query, kind, place in UNLAWFUL:
        answer = wire.http.get(f"{path}?{query}")
        assert answer.status_code == 422, f"{query}: {answer.text}"
        (wrong,) = answer.json()["detail"]
        assert (wrong["type"], wrong["loc"]) == (kind, ["query", place])


@pytest.mark.parametrize("path", LISTS)
def test_filters_that_cannot_be_understood_are_400_and_text(wire: Wire, path: str) -> None:
    for query in NOT_UNDERSTOOD:
        answer = wire.http.get(path, params=query)
        assert answer.status_code == 400, f"{query}: {answer.text}"
        assert isinstance(answer.json()["detail"], str)


def test_an_unknown_field_is_answered_with_those_there_are(wire: Wire) -> None:
    said = wire.http.get(FILES, params={"filter[nothing]": "x"}).json()["detail"]
    assert said.startswith("Unknown filter field 'nothing'. Valid fields: [")
    for field in ("id", "name", "workspace", "project", "entity_type", "created_at", "updated_at"):
        assert f"'{field}'" in said


SAME = [
    ({"filter[name]": "aa"}, {"name": {"$eq": "aa"}}),
    ({"filter": '{"name": {"$in": ["aa", "x"]}}'}, {"name": {"$in": ["aa", "x"]}}),
    ({"filter[name][$in]": "aa,x"}, {"name": {"$in": ["aa", "x"]}}),
    ({"filter": 'name:"aa" OR name~"X"'}, {"$or": [{"name": {"$eq": "aa"}}, {"name": {"$like": "X"}}]}),
    (
        {"filter[$and]": "{'name': {'$like': 'A'}},{'project': None}"},
        {"$and": [{"name": {"$like": "A"}}, {"project": {"$eq": None}}]},
    ),
    ({"filter[$not][name][$in]": "bb,cc"}, {"$not": {"name": {"$in": ["bb", "cc"]}}}),
]


def test_every_encoding_narrows_and_is_echoed(files: Wire) -> None:
    for query, tree in SAME:
        answer = files.http.get(FILES, params=query)
        assert names(answer) == ["aa"], query
        assert answer.json()["filter"] == tree


def test_default_order_is_the_newest_first_and_the_oldest_first_for_models(files: Wire) -> None:
    assert names(files.http.get(FILES)) == ["cc", "bb", "aa"]
    files.model("dd")
    files.model("ee")
    assert names(files.http.get(MODELS)) == ["dd", "ee"]
    assert names(files.http.get(WORKSPACES, params={"sort": "name"})) == ["default", "system"]
