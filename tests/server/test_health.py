"""Alive, ready, and what it is."""

from __future__ import annotations

import re

import pytest

from tests.live import LiveServer
from tunesmith import __version__


def test_what_it_is(live: LiveServer) -> None:
    assert live.http.get("/cluster-info").json() == {
        "platform_version": "0.3.0",
        "revision": f"tunesmith-{__version__}",
    }
    assert live.http.get("/apis/auth/discovery").json() == {"auth_enabled": False, "oidc": None}
    health = live.http.get("/apis/customization/v2/healthz").json()
    assert (health["plugin"], health["status"]) == ("customization", "ok")
    assert health["contributors"] == sorted(health["contributors"])
    assert "automodel" in health["contributors"]


def test_the_root_the_docs_and_the_interface_answer(live: LiveServer) -> None:
    assert __version__ in live.http.get("/").text
    assert live.http.get("/docs").status_code == 200
    assert live.http.get("/openapi.json").json()["info"]["title"] == "Tunesmith"


def test_the_page_for_people_needs_no_other_machine_and_names_every_operation(live: LiveServer) -> None:
    page = live.http.get("/docs").text
    assert not [loads for loads in ("src=", "<link", "@import", "url(", 'href="http') if loads in page]
    for path in live.http.get("/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in page
    assert page.count('<h3 id="Model">') == 1


def test_every_operation_says_what_it_may_refuse_and_every_shape_that_is_named_is_there(live: LiveServer) -> None:
    document = live.http.get("/openapi.json")
    described = document.json()
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert {"400", "404", "422", "503"} <= operation["responses"].keys(), path
            assert operation["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith(
                "/InvalidRequest"
            )
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', document.text))
    assert named == set(described["components"]["schemas"])


def test_without_its_database_it_is_alive_and_not_ready(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: object) -> None:
        raise OSError("the password is in here")

    monkeypatch.setattr(live.server.config.app.state.services.database, "read", gone)
    assert live.http.get("/health/live").status_code == 200
    answer = live.http.get("/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"detail": {"status": "not_ready"}})
    status = live.http.get("/status")
    assert status.status_code == 200
    assert status.json()["status"] == "unhealthy"
    assert status.json()["services"]["ready"] == []
    assert {"entities", "files", "jobs", "models"} <= {
        entry["name"] for entry in status.json()["services"]["not_ready"]
    }
    assert "password" not in status.text


def test_services_are_named_as_on_the_wire(live: LiveServer) -> None:
    status = live.http.get("/status").json()
    assert {"entities", "files", "models", "jobs", "secrets", "customization"} <= set(status["services"]["ready"])
    assert status["services"]["not_ready"] == []
    assert status["controllers"]["healthy"] is True
