"""The state machine of jobs and leases, ten times as long."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.control.test_state_machine import Jobs


class LongJobs(Jobs):
    """The same machine."""


TestJobsForLong = LongJobs.TestCase
TestJobsForLong.settings = settings(
    max_examples=200, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
