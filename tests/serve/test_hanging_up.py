"""A caller who hangs up takes its request out of the batch, streaming or not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.serve.conftest import ALLOWED, BASE
from tunesmith.generate.engine import Engine
from tunesmith.generate.request import Request

DEADLINE_SECONDS = 30


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_whose_caller_hangs_up_leaves_the_batch(
    http: TestClient, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[Request] = []
    submit = Engine.submit

    def swallow(engine: Engine, request: Request) -> None:
        request.emit = lambda piece: None  # its tokens never arrive, so that only hanging up can end the call
        submitted.append(request)
        submit(engine, request)

    monkeypatch.setattr(Engine, "submit", swallow)
    asyncio.run(asyncio.wait_for(call_and_hang_up(http.app, stream), DEADLINE_SECONDS))
    (request,) = submitted
    assert request.cancelled


async def call_and_hang_up(app: Any, stream: bool) -> None:
    body = json.dumps({"model": BASE, "prompt": "a", "max_tokens": 200, "ignore_eos": True, "stream": stream}).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(message: dict[str, Any]) -> None:
        pass

    headers = [(b"content-type", b"application/json"), (b"authorization", ALLOWED["Authorization"].encode())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/completions",
        "raw_path": b"/v1/completions",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, receive, send)
