"""Fifty made-up requests for each operation of our OpenAPI."""

from __future__ import annotations

from collections.abc import Callable

from tests.live import LiveServer
from tests.server.fuzzing import fuzz

EXAMPLES = 50


def test_made_up_requests_get_documented_answers(
    live: LiveServer, record_property: Callable[[str, object], None]
) -> None:
    story = fuzz(live, EXAMPLES)
    record_property("covered", str(story))
    assert not story.wrong, "\n\n".join(f"{label}\n{text}" for label, text in story.wrong.items())
