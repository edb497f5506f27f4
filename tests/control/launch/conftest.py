"""Launches of tiny programs in a throw-away run, all of them ended when the test is over."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.control.launch import local

DEADLINE_SECONDS = 15.0


def until(what: Callable[[], Any]) -> Any:
    """The first true answer of `what`; fails the test when the deadline passes without one."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        answer = what()
        if answer:
            return answer
        time.sleep(0.005)
    raise AssertionError("waited in vain")


class Bench:
    """One run directory with launches of one phase."""

    phase: local.Phase = "train"

    def __init__(self, run: Path) -> None:
        self.run = run
        self.identities: list[local.Identity] = []

    until = staticmethod(until)

    def start(self, code: str, attempt: int = 1, **options: Any) -> local.Identity:
        argv = options.pop("argv", [sys.executable, "-I", "-S", "-c", code])
        env = local.engine_environment(options.pop("env", {}))
        identity = asyncio.run(local.start(self.run, self.phase, attempt, argv, env, **options))
        self.identities.append(identity)
        return identity

    def exit(self, attempt: int = 1) -> local.Exit:
        return until(lambda: local.exit_facts(self.run, self.phase, attempt))

    def file(self, name: str) -> str:
        """What a rank wrote into the run (by rename, or in one small write)."""
        return until(lambda: (self.run / name).exists() and (self.run / name).read_text())

    def log(self, attempt: int = 1) -> list[local.LogLine]:
        """All of it, page by page."""
        lines: list[local.LogLine] = []
        while page := local.read_log(self.run, self.phase, attempt, after_line=len(lines)):
            lines += page
        return lines

    def text(self, attempt: int = 1) -> list[str]:
        return [line.text for line in self.log(attempt)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    run = tmp_path / "run"
    run.mkdir()
    bench = Bench(run)
    yield bench
    for identity in bench.identities:
        asyncio.run(local.stop(identity, 0))
