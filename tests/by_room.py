"""Says at the end of a run what was covered: tests and seconds by room, and what a test recorded as `covered`.

pyproject.toml loads this as a pytest plugin.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePath

import pytest
from _pytest.terminal import TerminalReporter


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    rooms: dict[str, list[float]] = defaultdict(list)
    said: list[str] = []
    for outcome in ("passed", "failed", "xfailed"):
        for report in terminalreporter.stats.get(outcome, []):
            if getattr(report, "when", "") == "call":
                parts = PurePath(report.nodeid.partition("::")[0]).parts
                rooms[parts[1] if len(parts) > 2 else "tests"].append(report.duration)
                said += [str(value) for key, value in report.user_properties if key == "covered"]
    if len(rooms) > 1:
        terminalreporter.section("covered")
        for room, seconds in sorted(rooms.items()):
            terminalreporter.write_line(f"  {room:<14} {len(seconds):>5} tests {sum(seconds):>7.1f} s")
        everything = [second for seconds in rooms.values() for second in seconds]
        terminalreporter.write_line(f"  {'all':<14} {len(everything):>5} tests {sum(everything):>7.1f} s")
    for line in said:
        terminalreporter.write_line(f"  {line}")
