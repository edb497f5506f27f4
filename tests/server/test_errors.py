"""Errors have one form, and what cannot be stored or answered is refused before anybody works with it."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import httpx
import pytest

from tests.live import FILES, MODELS, LiveServer, Wire
from tunesmith.server.body import DEEPEST_JSON, LARGEST_JSON, MOST_ITEMS, problems_of

JSON = {"content-type": "application/json"}


def refused(live: LiveServer, body: bytes, url: str = FILES, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = live.http.post(url, content=body, headers=headers or JSON)
    assert answer.status_code == 422, answer.text
    first = answer.json()["detail"][0]
    assert {"type", "loc", "msg", "input"} <= set(first)
    return first


# -- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "where"),
    [
        (b'{"name":"aa","metadata":{"x":[1,NaN]}}', "finite_number", ["body", "metadata", "x", 1]),
        (b'{"name":"aa","metadata":{"x":-Infinity}}', "finite_number", ["body", "metadata", "x"]),
        (b'{"name":"aa","metadata":{"x":1e999}}', "finite_number", ["body", "metadata", "x"]),
        (rb'{"name":"aa","description":"a\ud800b"}', "string_unicode", ["body", "description"]),
        (rb'{"name":"aa","description":"a\u0000b"}', "string_unicode", ["body", "description"]),
        (rb'{"name":"aa","custom_fields":{"\udfff":1}}', "string_unicode", ["body", "custom_fields"]),
        (
            b'{"name":"aa","custom_fields":{"n":9223372036854775808}}',
            "int_parsing_size",
            ["body", "custom_fields", "n"],
        ),
        (b'{"name":"aa","custom_fields":{"n":%s}}' % (b"9" * 5000), "int_parsing_size", ["body", "custom_fields", "n"]),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "recursion_loop", ["body"]),
        (b'{"name":"\xff"}', "json_invalid", ["body", 9]),
        ('{"name":"aa"}'.encode("utf-16"), "json_invalid", ["body", 0]),
        (b"{\x00}", "json_invalid", ["body", 1]),
        (b'{"name":', "json_invalid", ["body", 8]),
        (b'["aa"]', "model_attributes_type", ["body"]),
        (b"{}", "missing", ["body", "name"]),
        (b'{"name":"aa","colour":1}', "extra_forbidden", ["body", "colour"]),
    ],
)
def test_a_body_that_cannot_be_kept_is_refused_where_it_is_wrong(
    live: LiveServer, body: bytes, kind: str, where: list[str | int]
) -> None:
    first = refused(live, body)
    assert (first["type"], first["loc"]) == (kind, where)
    assert live.http.get(FILES).json()["data"] == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":9223372036854775807,"b":-9223372036854775807}',
        rb'{"a":"\ud83d\ude00 \\u0000 \\ud800"}',
        b'{"a":"NaN, Infinity and 1234567890123456789012"}',
        b'{"a":"%s"}' % (b"[{" * 500),
        b"[]," * DEEPEST_JSON,
    ],
)
def test_a_body_that_only_looks_odd_passes(body: bytes) -> None:
    assert problems_of(body) == []


def test_nesting_is_counted_to_the_bracket() -> None:
    def nested(depth: int) -> bytes:
        return b"[" * depth + b"]" * depth

    assert problems_of(nested(DEEPEST_JSON)) == []
    assert problems_of(nested(DEEPEST_JSON + 1))[0]["type"] == "recursion_loop"


def test_a_hostile_body_is_refused_before_others_notice(live: LiveServer) -> None:
    """Each took from seconds to hours of everybody's time: quotes by regular expression, a report of every error."""
    quotes = b"[" * (DEEPEST_JSON + 6) + b'"' + b'\\"' * 500_000
    keys = b'{"name":"aa",' + b",".join(b'"k%d":1' % number for number in range(200_000)) + b"}"
    layers = b'{"name":"aa","spec":{"linear_layers":[' + b",".join([b"{}"] * 80_000) + b"]}}"
    many = b'{"name":"aa","custom_fields":{"a":[' + b",".join([b"1234"] * (MOST_ITEMS + 1)) + b"]}}"
    for body, kind in ((quotes, "json_invalid"), (keys, "too_long"), (layers, "missing"), (many, "too_long")):
        for url in (FILES, MODELS):
            began = time.monotonic()
            answer = live.http.post(url, content=body, headers=JSON)
            assert answer.status_code == 422, answer.text[:500]
            kinds = {each["type"] for each in answer.json()["detail"]}
            assert kind in kinds or kinds == {"extra_forbidden"}, kinds
            assert len(answer.content) < 10_000
            assert time.monotonic() - began < 10, (url, body[:60])


def test_a_body_of_another_kind_says_what_to_send(live: LiveServer) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = live.http.post(FILES, content=b'{"name":"aa"}', headers={"content-type": kind})
        assert answer.status_code == 415, kind
        assert "application/json" in answer.json()["detail"]
    charset = {"content-type": "application/json; charset=utf-8"}
    assert live.http.post(FILES, content=b'{"name":"aa"}', headers=charset).status_code == 200


def test_an_empty_body_with_a_json_type_is_no_body(live: LiveServer) -> None:
    """As the published client sends its cancels."""
    answer = live.http.post("/apis/jobs/v2/workspaces/default/jobs/none/cancel", headers=JSON)
    assert answer.status_code == 404
    assert live.http.post(FILES, headers=JSON).json()["detail"][0]["type"] == "missing"


def chunks(size: int) -> Any:
    for _ in range(0, size, 1 << 20):
        yield b" " * (1 << 20)


def test_a_body_that_is_too_large_is_not_kept(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b" " * (LARGEST_JSON + 1), chunks(100 << 20)):
        answer = httpx.post(live.url + FILES, content=content, headers=JSON, timeout=30)
        assert (answer.status_code, answer.headers["connection"]) == (413, "close")
        assert str(LARGEST_JSON) in answer.json()["detail"]


def test_who_asks_before_sending_is_refused_before_sending(live: LiveServer) -> None:
    address = ("127.0.0.1", int(live.url.rpartition(":")[2]))
    head = f"POST {FILES} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(address, timeout=30) as plug:
        plug.sendall(f"{head}Content-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n".encode())
        assert plug.recv(100).startswith(b"HTTP/1.1 413")


def test_a_file_may_be_larger_than_a_json_body(wire: Wire) -> None:
    wire.fileset("large", {"a.bin": bytes(LARGEST_JSON + 1)})


# -- what is repeated ------------------------------------------------------------------------------------------------


def test_a_credential_is_not_repeated(live: LiveServer) -> None:
    body = {"api_endpoint": {"api_key": "canary-1"}, "password": "canary-2", "colour": "red"}
    answer = live.http.post(MODELS, json=body)
    assert answer.status_code == 422
    assert "canary" not in answer.text
    assert "red" in answer.text


def test_a_secret_is_not_repeated(live: LiveServer) -> None:
    url = "/apis/secrets/v2/workspaces/default/secrets"
    for body in ({"value": "canary"}, {"name": "ab", "value": ["canary"]}, {"name": "ab", "value": "", "x": "canary"}):
        answer = live.http.post(url, json=body)
        assert answer.status_code == 422, answer.text
        assert "canary" not in answer.text
    for number in (b"12345678901234567890", b"-1e999"):
        answer = live.http.post(url, content=b'{"name":"ab","value":%s}' % number, headers=JSON)
        assert answer.status_code == 422
        assert number.decode() not in answer.text


def test_a_long_input_is_not_repeated(live: LiveServer) -> None:
    first = refused(live, json.dumps({"description": "x" * 5000}).encode())
    assert first["input"].endswith("characters, not repeated)")


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        f"{FILES}/a%00b",
        f"{FILES}/%ff%fe",
        f"{FILES}?page=%00",
        f"{FILES}?filter[name]=%ff",
        f"{FILES}?%ed%a0%80=1",
    ],
)
def test_an_address_that_is_no_text_is_refused(live: LiveServer, path: str) -> None:
    answer = live.http.get(path)
    assert answer.status_code == 400
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("name", ["a" * 300, "%zz", "%F0%9F%98%80", "x%2Fy", "..%2F..%2Fetc", "%EF%BF%BD", "%0Aevil"])
def test_a_strange_name_in_the_path_is_not_there(live: LiveServer, name: str) -> None:
    assert live.http.get(f"{MODELS}/{name}").status_code in (400, 404, 422)


@pytest.mark.parametrize("name", ["a" * 300, "ä", "😀", "a/b", "../up", "a b", "A", "a\nb", "-a", ""])
def test_a_strange_name_cannot_be_given(live: LiveServer, name: str) -> None:
    assert live.http.post(FILES, json={"name": name}).status_code == 422
    assert live.http.post(MODELS, json={"name": name}).status_code == 422


@pytest.mark.parametrize("name", ["a%0Ab", "a%0D%0Ax-evil:%201", "%7F", "%E2%82%AC"])
def test_a_strange_name_of_a_repository_stays_out_of_the_headers(live: LiveServer, name: str) -> None:
    answer = live.http.get(f"/apis/files/v2/hf/api/models/default/{name}")
    assert answer.status_code in (400, 404)
    assert "x-evil" not in answer.headers


# -- statuses --------------------------------------------------------------------------------------------------------


def test_a_conflict_says_that_repeating_will_not_help(live: LiveServer) -> None:
    live.http.post(FILES, json={"name": "twice"})
    answer = live.http.post(FILES, json={"name": "twice"})
    assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
    assert isinstance(answer.json()["detail"], str)


def test_a_wrong_method_names_the_right_ones(live: LiveServer) -> None:
    answer = live.http.patch("/health/live")
    assert (answer.status_code, answer.json(), answer.headers["allow"]) == (
        405,
        {"detail": "Method Not Allowed"},
        "GET",
    )


def test_a_surprise_closes_the_connection(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(live.server.config.app.state.services.models, "page", broken)
    answer = live.http.get(MODELS)
    assert (answer.status_code, answer.json()) == (500, {"detail": "An unexpected error occurred."})
    assert answer.headers["connection"] == "close"
    assert live.http.get("/health/live").status_code == 200
