"""The door: strangers' web pages stay out, errors have one form, health answers."""

from __future__ import annotations

import httpx
import pytest

from tests.live import FILES, LiveServer
from tunesmith.server.access import Door
from tunesmith.settings import Settings


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "[::1", "a b"])
def test_a_host_that_is_not_ours_is_refused(live: LiveServer, host: str) -> None:
    answer = live.http.get("/health/live", headers={"host": host})
    assert answer.status_code == 400
    if host == "evil.example":
        assert "TUNESMITH_ALLOWED_HOSTS" in answer.json()["detail"]


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "192.168.1.5", "a.localhost"]
)
def test_our_names_and_addresses_are_served(live: LiveServer, host: str) -> None:
    assert live.http.get("/health/live", headers={"host": host}).status_code == 200


def test_a_name_is_ours_when_the_operator_says_so(tmp_path: object) -> None:
    door = Door(lambda *_: None, Settings(allowed_hosts=("studio.example",)))
    assert door._is_ours("studio.example")
    assert not door._is_ours("other.example")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1.evil.example"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_a_foreign_page_may_not_change_anything(live: LiveServer, headers: dict[str, str]) -> None:
    assert live.http.post(FILES, json={"name": "rows"}, headers=headers).status_code == 403
    assert live.http.get(FILES).json()["data"] == []


def test_our_own_pages_may(live: LiveServer) -> None:
    for name, origin in (("aa", live.url), ("bb", live.url.replace("127.0.0.1", "localhost"))):
        answer = live.http.post(FILES, json={"name": name}, headers={"origin": origin})
        assert answer.status_code == 200, origin


def test_a_page_on_another_port_of_this_machine_is_foreign(live: LiveServer) -> None:
    """Whatever else runs here (a notebook, another app) may show pages that we did not write."""
    for origin in ("http://127.0.0.1:1", "http://127.0.0.1", "https://localhost", f"ftp{live.url[4:]}"):
        answer = live.http.post(FILES, json={"name": "rows"}, headers={"origin": origin})
        assert answer.status_code == 403, origin


def test_a_proxy_that_the_operator_named_may_stand_on_any_port() -> None:
    door = Door(lambda *_: None, Settings(allowed_hosts=("studio.example",)))
    for origin in ("https://studio.example", "https://studio.example:8443"):
        assert door._is_same(origin, "studio.example")
        assert door._is_same(origin, "127.0.0.1:8080")
    assert not door._is_same("https://other.example", "studio.example")
    assert door._is_same("http://192.168.1.5", "192.168.1.5:80")


def test_no_foreign_page_is_told_that_it_may_read(live: LiveServer) -> None:
    answer = live.http.get(FILES, headers={"origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_health_and_status_answer(live: LiveServer) -> None:
    assert live.http.get("/health/live").json() == {"status": "live"}
    assert live.http.get("/health/ready").json() == {"status": "ready"}
    status = live.http.get("/status").json()
    assert status["status"] == "healthy"
    assert {"jobs", "deployments"} <= set(status["controllers"]["status"])
    assert all(status["controllers"]["status"].values())
    assert live.http.get("/").status_code == 200


def test_errors_have_one_form(live: LiveServer) -> None:
    assert live.http.get("/nowhere").json() == {"detail": "Not Found"}
    assert live.http.patch("/health/live").json() == {"detail": "Method Not Allowed"}
    broken = live.http.post(FILES, content=b"{", headers={"content-type": "application/json"})
    assert broken.status_code == 422
    assert broken.json()["detail"][0]["type"] == "json_invalid"


def test_a_surprise_is_a_500_without_a_stack_trace(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    services = live.server.config.app.state.services

    def broken(*_: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(services.filesets, "page", broken)
    answer = httpx.get(live.url + FILES)
    assert (answer.status_code, answer.json()) == (500, {"detail": "An unexpected error occurred."})
