"""CI cannot be green because something is missing."""

import pytest

from tests import no_skips

pytest_plugins = ["pytester"]


@pytest.fixture
def tests_that_skip(pytester, monkeypatch):
    monkeypatch.setenv("TUNESMITH_NO_SKIP", "1")
    pytester.makepyfile(
        test_one="import pytest\ndef test_skips(): pytest.skip('no database here')\ndef test_runs(): pass",
        test_two="import pytest\npytest.importorskip('no_such_module')\ndef test_never(): pass",
        test_three="import pytest\n@pytest.mark.xfail(strict=True)\ndef test_known(): raise ValueError",
    )
    return pytester


def run(pytester):
    return pytester.runpytest_inprocess("-p", "tests.no_skips", "--continue-on-collection-errors")


def test_a_skipped_test_fails_and_says_why(tests_that_skip):
    result = run(tests_that_skip)
    result.assert_outcomes(passed=1, failed=1, errors=1, xfailed=1)
    result.stdout.fnmatch_lines_random(["*no database here*does not list test_one.py::test_skips*"])
    result.stdout.fnmatch_lines_random(["*no_such_module*does not list test_two.py*"])


def test_a_listed_test_may_be_skipped(tests_that_skip, monkeypatch):
    monkeypatch.setattr(no_skips, "MAY_BE_SKIPPED", {"test_one.py::test_skips": "needs a GPU", "test_two.py": "too"})
    run(tests_that_skip).assert_outcomes(passed=1, skipped=2, xfailed=1)


def test_without_the_variable_a_skip_is_a_skip(tests_that_skip, monkeypatch):
    monkeypatch.delenv("TUNESMITH_NO_SKIP")
    run(tests_that_skip).assert_outcomes(passed=1, skipped=2, xfailed=1)


def test_only_a_missing_gpu_is_a_reason():
    assert all("GPU" in reason for reason in no_skips.MAY_BE_SKIPPED.values())
