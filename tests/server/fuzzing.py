"""Requests made up from our own OpenAPI: what comes back must be documented, conform, and never be a 500."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks as openapi_checks

from tests.live import FILES, MODELS, LiveServer

CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
THERE = {"workspace": "default", "name": "there", "model": "there", "revision": "main", "path": "a.txt"}
"""Names that exist, which half of the requests use; those that delete never do."""


@dataclass
class Story:
    """What was asked and what went wrong."""

    operations: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        return f"schemathesis: {self.operations} operations, {self.statuses.total()} requests ({statuses})"


def fuzz(live: LiveServer, examples: int) -> Story:
    """Ask each operation `examples` times; the first thing that goes wrong with each is kept."""
    live.http.post(FILES, json={"name": THERE["name"]}).raise_for_status()
    live.http.put(f"{FILES}/{THERE['name']}/-/{THERE['path']}", content=b"text").raise_for_status()
    live.http.post(MODELS, json={"name": THERE["model"]}).raise_for_status()
    schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
    story = Story()
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()
            story.operations += 1
            try:
                _one(operation, session, examples, story)
            except (Exception, FailureGroup) as failure:
                story.wrong[operation.label] = os.linesep.join(_lines(failure))
    return story


def _one(operation: Any, session: requests.Session, examples: int, story: Story) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), there=st.booleans())
    def ask(case: Any, there: bool) -> None:
        if there and operation.method.upper() != "DELETE":
            case.path_parameters = {key: THERE.get(key, value) for key, value in (case.path_parameters or {}).items()}
        response = case.call(session=session, timeout=30)
        story.statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    ask()


def _lines(failure: BaseException) -> list[str]:
    """The failure's text, and those in it."""
    inner = getattr(failure, "exceptions", ())
    return [f"{type(failure).__name__}: {failure}"[:1500], *(line for each in inner for line in _lines(each))]
