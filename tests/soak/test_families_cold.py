"""Every family over HTTP as in the journey, each data process and trainer started afresh."""

from __future__ import annotations

import pytest

from tests.journeys.test_families_over_http import (
    bases,  # noqa: F401 - a fixture
    test_it_is_trained_and_loads_elsewhere,  # noqa: F401 - the test
    user,  # noqa: F401 - a fixture
)


@pytest.fixture(scope="module")
def warm_seconds() -> int:
    """No process is forked from one that has its imports."""
    return 0
