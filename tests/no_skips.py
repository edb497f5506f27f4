"""With TUNESMITH_NO_SKIP=1 a skipped test is a failed one, so that CI cannot be green because something is missing.

pyproject.toml loads this as a pytest plugin.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

VARIABLE = "TUNESMITH_NO_SKIP"

MAY_BE_SKIPPED: dict[str, str] = {}
"""Start of a node id (`tests/train/test_cuda.py`), and why: only "needs a GPU" is a reason."""


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    expected_failure = hasattr(report, "wasxfail")
    listed = any(report.nodeid.startswith(start) for start in MAY_BE_SKIPPED)
    if not report.skipped or expected_failure or listed or os.environ.get(VARIABLE) != "1":
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{reason}: a failure because {VARIABLE}=1 and tests/no_skips.py does not list {report.nodeid}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse(report)
    return report
