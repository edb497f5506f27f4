"""One id goes from the request to the log's lines, the job, its run and its events."""

from __future__ import annotations

import io
import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live import FILES, MODELS, LiveServer, Wire, eventually
from tunesmith.control.request_id import REQUEST_ID
from tunesmith.control.routing import Target
from tunesmith.control.serving import Endpoint
from tunesmith.handoff.events import Started, events_path, read_events
from tunesmith.server import logs
from tunesmith.settings import Settings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before, level


@pytest.fixture
def written() -> io.StringIO:
    stream = io.StringIO()
    logs.set_up(Settings(), stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def about_requests(stream: io.StringIO) -> list[dict[str, Any]]:
    return [line for line in lines(stream) if line["logger"] == "tunesmith.server.logs"]


# -- ids -------------------------------------------------------------------------------------------------------------


def test_a_lawful_id_is_kept_and_another_is_replaced(live: LiveServer) -> None:
    given = live.http.get("/health/live", headers={"x-request-id": "trace-01/a:b"})
    assert given.headers.get_list("x-request-id") == ["trace-01/a:b"]
    made = {live.http.get("/health/live").headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    for bad in ("a" * 129, "a b", 'a"b', ""):
        answer = live.http.get("/health/live", headers={"x-request-id": bad})
        assert answer.headers["x-request-id"] not in (bad, *made)


def test_refusals_carry_the_id_too(live: LiveServer) -> None:
    for headers, url in (({"host": "evil.example"}, "/"), ({}, "/nowhere"), ({}, f"{FILES}?page=%00")):
        answer = live.http.get(url, headers={**headers, "x-request-id": "mine"})
        assert answer.is_error
        assert answer.headers["x-request-id"] == "mine"


def test_the_id_of_a_submission_reaches_job_run_and_events(wire: Wire, tmp_path: Path, small_trainer: None) -> None:
    wire.model()
    wire.dataset()
    wire.http.headers["x-request-id"] = "the-cause"
    assert wire.submit().status_code == 201
    del wire.http.headers["x-request-id"]
    assert wire.wait()["status"] == "completed"
    with sqlite3.connect(tmp_path / "data" / "tunesmith.db") as database:
        [(job, request_id)] = database.execute("select id, request_id from jobs").fetchall()
    assert request_id == "the-cause"
    events, _ = read_events(events_path(tmp_path / "data" / "runs" / job, 1), 0)
    assert [event.request_id for event in events if isinstance(event, Started)] == ["the-cause"]


# -- lines -----------------------------------------------------------------------------------------------------------


def test_writes_and_errors_have_a_line_and_reads_have_none(live: LiveServer, written: io.StringIO) -> None:
    live.http.post(FILES, json={"name": "rows"}, headers={"x-request-id": "one"})
    live.http.get(FILES)
    live.http.get(f"{MODELS}/none?token=canary", headers={"x-request-id": "two"})
    written_down = eventually(lambda: len(about_requests(written)) == 2 and about_requests(written), "two lines")
    first, second = written_down
    assert (first["method"], first["path"], first["status"], first["request_id"]) == ("POST", FILES, 200, "one")
    assert first["milliseconds"] > 0
    assert (second["path"], second["status"], second["request_id"]) == (f"{MODELS}/none", 404, "two")
    assert "canary" not in written.getvalue()


def test_a_path_cannot_forge_a_line(live: LiveServer, written: io.StringIO) -> None:
    live.http.get(f"{MODELS}/a%0Aforged")
    [line] = eventually(lambda: about_requests(written), "a line")
    assert line["path"].endswith("a%0Aforged")


def test_a_surprise_is_written_once_with_its_traceback(
    live: LiveServer, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("what went wrong")

    monkeypatch.setattr(live.server.config.app.state.services.models, "page", broken)
    httpx.get(live.url + MODELS, headers={"x-request-id": "why"})
    surprises = eventually(lambda: [line for line in lines(written) if "error" in line], "the surprise")
    assert len(surprises) == 1
    assert "what went wrong" in surprises[0]["error"]
    assert surprises[0]["request_id"] == "why"


@pytest.mark.parametrize(
    ("wanted", "stream", "is_json"),
    [
        ("auto", io.StringIO(), True),
        ("auto", Terminal(), False),
        ("json", Terminal(), True),
        ("text", io.StringIO(), False),
    ],
)
def test_people_get_lines_and_machines_get_json(wanted: Any, stream: io.StringIO, is_json: bool) -> None:
    logs.set_up(Settings(log_format=wanted), stream)
    token = REQUEST_ID.set("the-id")
    try:
        raise ValueError("a reason")
    except ValueError:
        logging.getLogger("tunesmith.x").exception("it\nfailed")
    finally:
        REQUEST_ID.reset(token)
    text = stream.getvalue()
    if is_json:
        [line] = lines(stream)
        assert (line["level"], line["message"], line["request_id"]) == ("error", "it\nfailed", "the-id")
        assert "ValueError: a reason" in line["error"]
    else:
        assert "ERROR   tunesmith.x: it\nfailed [the-id]\nTraceback" in text


def test_the_id_goes_on_to_the_process_that_answers(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    services = live.server.config.app.state.services
    seen: list[str] = []

    async def target(*_: object) -> Target:
        return Target(Endpoint(1, "token"), "served", "default/base")

    async def send(request: httpx.Request, *, stream: bool) -> httpx.Response:
        seen.append(request.headers["x-request-id"])
        return httpx.Response(200, json={"model": "served"})

    monkeypatch.setattr(services.routing, "target", target)
    monkeypatch.setattr(services.http, "send", send)
    url = "/apis/inference-gateway/v2/workspaces/default/openai/-/v1/chat/completions"
    answer = live.http.post(url, json={"model": "base", "messages": []}, headers={"x-request-id": "asked-here"})
    assert answer.json() == {"model": "default/base"}
    assert seen == ["asked-here"]
