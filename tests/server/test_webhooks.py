"""Webhooks: every change of a job's status arrives, signed, at least once, at an address that the operator allows."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.control.platform import Platform, allowing, shell
from tests.journeys.house import House
from tests.live import JOBS, LiveServer, Wire, eventually, settings
from tunesmith.control import webhooks
from tunesmith.errors import Invalid
from tunesmith.settings import Settings

WEBHOOKS = "/apis/jobs/v2/workspaces/default/webhooks"
SECRETS = "/apis/secrets/v2/workspaces/default/secrets"
KEY = b"0123456789abcdef"


@dataclass
class Told:
    """A delivery as it came."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["data"]
        return found

    def is_signed_with(self, key: bytes) -> bool:
        """Computed here from the words of the standard, not by our own code."""
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split()


@dataclass
class Receiver:
    """A web server on the loopback that keeps what it is told."""

    answers: list[int] = field(default_factory=list)
    """Statuses of the next answers; 200 after them."""
    told: list[Told] = field(default_factory=list)

    def __enter__(self) -> Self:
        outer = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.told.append(Told({key.lower(): value for key, value in self.headers.items()}, body))
                self.send_response(outer.answers.pop(0) if outer.answers else 200)
                self.send_header("location", "/elsewhere")
                self.end_headers()

            def do_GET(self) -> None:
                outer.told.append(Told({}, b"{}"))  # nobody should ever ask

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Answer)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def statuses(self) -> list[tuple[str | None, str]]:
        """From what to what, in the order in which it came."""
        return [(told.data["previous"], told.data["status"]) for told in self.told]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def allowed(tmp_path: Path, receiver: Receiver) -> Settings:
    """Settings that let the receiver be called."""
    return replace(settings(tmp_path), webhook_hosts=(receiver.host,))


@pytest.fixture
def told(small_trainer: None, allowed: Settings) -> Iterator[Wire]:
    """A user with a model, a data set and a secret."""
    with LiveServer(allowed) as server:
        yield ready(Wire(server.http))


def ready(wire: Wire) -> Wire:
    wire.model()
    wire.dataset()
    value = f"whsec_{base64.b64encode(KEY).decode()}"
    assert wire.http.post(SECRETS, json={"name": "signing", "value": value}).status_code == 201
    return wire


def create(wire: Wire, receiver: Receiver, **changes: Any) -> dict[str, Any]:
    asked = {"name": "hook", "url": f"http://{receiver.host}/told?by=us", "secret": "signing", **changes}
    answer = wire.http.post(WEBHOOKS, json=asked)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_every_change_of_a_job_is_told_and_signed(told: Wire, receiver: Receiver) -> None:
    made = create(told, receiver, description="all of it")
    assert (made["secret"], made["statuses"], made["owed"]) == ("default/signing", [], 0)
    told.submit()
    state = told.wait()
    eventually(lambda: receiver.statuses()[-1:] == [("active", "completed")], "the last delivery")
    assert receiver.statuses() == [(None, "created"), ("created", "active"), ("active", "completed")]
    assert all(each.is_signed_with(KEY) and not each.is_signed_with(b"another") for each in receiver.told)
    assert len({each.id for each in receiver.told}) == 3
    first = json.loads(receiver.told[0].body)
    assert (first["type"], first["timestamp"][-1]) == ("job.status", "Z")
    assert first["data"] == {
        "id": state["id"],
        "name": "job",
        "workspace": "default",
        "source": "customization",
        "status": "created",
        "previous": None,
        "error_details": None,
    }
    assert abs(int(receiver.told[0].headers["webhook-timestamp"]) - time.time()) < 60
    eventually(lambda: told.http.get(f"{WEBHOOKS}/hook").json()["owed"] == 0, "nothing to be owed")


def test_only_the_statuses_that_were_asked_for_with_the_reason_of_a_failure(told: Wire, receiver: Receiver) -> None:
    create(told, receiver, statuses=["error", "cancelled"])
    told.dataset("bad", behaviour="fail")
    told.submit()
    told.wait()
    told.submit("second", dataset={"training": "bad"}, output={"name": "other"})
    error = told.wait("second")["error_details"]
    eventually(lambda: receiver.told, "the delivery")
    assert receiver.statuses() == [("active", "error")]
    assert receiver.told[0].data["error_details"] == error


def test_a_platform_job_is_told_of_as_well(tmp_path: Path, receiver: Receiver) -> None:
    with LiveServer(allowing(tmp_path, webhook_hosts=(receiver.host,))) as server:
        wire = Platform(server.http)
        server.http.post(SECRETS, json={"name": "signing", "value": "any text"})
        create(wire, receiver, statuses=["created", "error"])
        error = wire.run(shell("one", "exit 3"))["error_details"]
        eventually(lambda: len(receiver.told) == 2, "both deliveries")
    assert [status for _, status in receiver.statuses()] == ["created", "error"]
    assert receiver.told[1].data["source"] == "tests"
    assert receiver.told[1].data["error_details"] == error
    assert all(told.is_signed_with(b"any text") for told in receiver.told)


def test_what_is_refused_is_sent_again_under_the_same_id_and_a_redirect_is_not_followed(
    told: Wire, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "WAITS", [timedelta(seconds=0.1)] * 7)
    receiver.answers = [500, 302]
    create(told, receiver, statuses=["completed"])
    told.submit()
    eventually(lambda: len(receiver.told) == 3, "the third try")
    assert len({each.id for each in receiver.told}) == len({each.body for each in receiver.told}) == 1
    assert all(each.is_signed_with(KEY) for each in receiver.told)
    first, last = (int(receiver.told[at].headers["webhook-timestamp"]) for at in (0, -1))
    assert last - first < 4, "each is sent again when it is due, and not when somebody happens to look"
    eventually(lambda: told.http.get(f"{WEBHOOKS}/hook").json()["owed"] == 0, "nothing to be owed")


def test_after_eight_tries_it_is_given_up_with_a_line_in_the_log(
    told: Wire, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks, "WAITS", [timedelta(seconds=0)] * 7)
    receiver.answers = [503] * 9
    create(told, receiver, statuses=["created"])
    told.submit()
    eventually(lambda: told.http.get(f"{WEBHOOKS}/hook").json()["owed"] == 0 and receiver.told, "it to be given up")
    assert len(receiver.told) == 8
    assert "webhook default/hook: it answered 503; given up after 8 tries" in caplog.text


def test_what_a_server_could_not_tell_the_next_one_tells(
    small_trainer: None, allowed: Settings, receiver: Receiver
) -> None:
    with LiveServer(allowed) as server:
        wire = ready(Wire(server.http))
        server.services.deliverer.receivers = nobody  # type: ignore[method-assign]
        create(wire, receiver)
        wire.submit()
        wire.wait()
        assert wire.http.get(f"{WEBHOOKS}/hook").json()["owed"] == 3
    assert receiver.told == []
    with LiveServer(allowed) as server:
        eventually(lambda: len(receiver.told) == 3, "the deliveries")
        assert receiver.statuses() == [(None, "created"), ("created", "active"), ("active", "completed")]
        assert server.http.get(f"{JOBS}/job").json()["status"] == "completed"


def test_a_server_killed_behind_a_delivery_tells_it_again_under_the_same_id(tmp_path: Path, receiver: Receiver) -> None:
    house = House(tmp_path / "data", "tests.small_platform")
    hosts = {"TUNESMITH_WEBHOOK_HOSTS": receiver.host}
    try:
        wire = Wire(httpx.Client(base_url=house.up(TUNESMITH_CRASH_AT="webhook-after-send", **hosts).base_url))
        create(ready(wire), receiver)
        with suppress(httpx.TransportError):
            wire.submit()
        assert house.process is not None
        assert house.process.wait(60) == -signal.SIGKILL
        assert receiver.statuses() == [(None, "created")]
        house.up(**hosts)
        eventually(lambda: receiver.statuses()[-1:] == [("active", "completed")], "the last delivery")
    finally:
        house.down()
    ids = [each.id for each in receiver.told]
    assert ids[0] == ids[1]
    assert len(set(ids)) == len(ids) - 1 == 3


async def nobody() -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://169.254.169.254/latest", "may not call 169.254.169.254:80: the setting TUNESMITH_WEBHOOK_HOSTS lists"),
        ("https://127.0.0.1/", "Add the receiver there, as host or host:port"),
        ("http://127.0.0.1:9001/", "may not call 127.0.0.1:9001"),
        ("http://127.0.0.1:9000@evil.example/", "must be http:// or https://"),
        ("http://evil.example#@127.0.0.1:9000/", "may not call evil.example:80"),
        ("http://evil.example\\@127.0.0.1:9000/", "url: "),
        ("http://Hooks.Example:443/", "may not call hooks.example:443"),
        ("ftp://127.0.0.1:9000/", "must be http:// or https://"),
        ("/told", "must be http:// or https://"),
        ("http://[::1", "must be http:// or https://"),
    ],
)
def test_an_address_that_the_operator_does_not_allow(url: str, message: str) -> None:
    hosts = ("127.0.0.1:9000", "hooks.example", "[::1]:9000")
    for good in (
        "http://127.0.0.1:9000/a?b",
        "https://hooks.example/",
        "http://HOOKS.example:80",
        "http://[::1]:9000/",
    ):
        webhooks.check_url(good, hosts)
    with pytest.raises(Invalid) as refused:
        webhooks.check_url(url, hosts)
    assert message in refused.value.message


def test_without_the_setting_there_are_no_webhooks(wire: Wire) -> None:
    answer = wire.http.post(WEBHOOKS, json={"name": "hook", "url": "https://example.org", "secret": "x"})
    assert (answer.status_code, "TUNESMITH_WEBHOOK_HOSTS lists none" in answer.json()["detail"]) == (422, True)


def test_a_missing_secret_is_a_conflict_and_a_bad_one_is_invalid(told: Wire, receiver: Receiver) -> None:
    asked = {"name": "hook", "url": f"http://{receiver.host}", "secret": "missing"}
    answer = told.http.post(WEBHOOKS, json=asked)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
    assert "secret: 'default/missing' does not exist" in answer.json()["detail"]
    told.http.post(SECRETS, json={"name": "bad", "value": "whsec_not base64"})
    answer = told.http.post(WEBHOOKS, json={**asked, "secret": "bad"})
    assert (answer.status_code, "not base64" in answer.json()["detail"]) == (422, True)
    assert "not base64 " not in answer.text  # the value itself is not repeated


def test_a_webhook_is_listed_shown_and_forgotten(told: Wire, receiver: Receiver) -> None:
    create(told, receiver, statuses=["error", "completed", "error"])
    assert (
        told.http.post(
            WEBHOOKS, json={"name": "hook", "url": f"http://{receiver.host}", "secret": "signing"}
        ).status_code
        == 409
    )
    shown = told.http.get(f"{WEBHOOKS}/hook").json()
    assert shown["statuses"] == ["error", "completed"]
    assert [each["name"] for each in told.http.get(WEBHOOKS).json()["data"]] == ["hook"]
    receiver.answers = [500]
    told.http.get(f"{WEBHOOKS}/hook")
    assert told.http.delete(f"{WEBHOOKS}/hook").status_code == 204
    assert told.http.get(f"{WEBHOOKS}/hook").status_code == 404
    told.submit()
    told.wait()
    assert receiver.told == []


def test_the_receiver_of_the_guide_knows_what_is_genuine() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "watching.md").read_text()
    code = guide.split("```python\n")[1].split("```")[0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", code.replace("9000", str(port))]
    content = b'{"data":{"status":"completed"}}'
    headers = webhooks.signed("msg-1", 1, content, webhooks.key_of("a key"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "SIGNING_KEY": "a key"}) as receiver:
        try:
            post = partial(httpx.post, f"http://127.0.0.1:{port}/jobs", headers=headers)
            eventually(lambda: answers(port), "the receiver")
            assert post(content=content).status_code == 204
            assert post(content=content.replace(b"completed", b"cancelled")).status_code == 401
        finally:
            receiver.kill()
        assert receiver.stdout is not None
        assert receiver.stdout.read().decode().splitlines() == ["{'status': 'completed'}", "forged"]


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
