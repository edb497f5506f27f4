"""Platform jobs on the wire: steps that somebody else defines, the tasks that workers report, and results."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.api.base import JsonObject, Listing, Request, Resource, Timestamp
from tunesmith.api.job_steps import PlatformSpec, ShownStepSpec
from tunesmith.api.jobs import CreateJob, JobStatus

STEPS_LISTED = Listing(page_size=25, sort="created_at", sortable=("created_at", "updated_at"))


class CreatePlatformJob(CreateJob):
    """A new job whose steps are commands."""

    source: Annotated[str, Field(min_length=1, max_length=255)]
    """What whoever submits the job calls itself; jobs are filtered by it."""
    spec: JsonObject
    """Anything; kept and shown, never read."""
    platform_spec: PlatformSpec


class StatusUpdate(Request):
    """What a worker says of its step."""

    status: JobStatus
    status_details: JsonObject | None = None
    """Merged into the step's and the job's, key by key."""
    error_details: JsonObject | None = None


class TaskUpdate(Request):
    """What a worker says of a task; what is absent or null stays as it was."""

    status: JobStatus = JobStatus.PENDING
    status_details: JsonObject | None = None
    """Merged into the task's and the job's, key by key."""
    error_details: JsonObject | None = None
    error_stack: str | None = None


class _Entity(Resource):
    id: str
    entity_id: str
    """The same as `id`."""
    name: str
    workspace: str
    project: str | None = None
    status: JobStatus
    status_details: JsonObject
    error_details: JsonObject | None
    parent: str | None
    created_at: Timestamp
    created_by: str | None = ""
    updated_at: Timestamp
    updated_by: str | None = ""


class JobStep(_Entity):
    """A step by itself; its parent is the job's attempt."""

    attempt_id: str
    config: JsonObject
    """Its own, and `_step_spec_name`."""


class JobTask(_Entity):
    """A task by itself; its parent is the step."""

    step_id: str
    error_stack: str | None


class AuthContext(Resource):
    """Who asked for a job."""

    principal_id: str
    principal_email: str | None = None
    principal_groups: list[str] = []
    principal_on_behalf_of: str | None = None
    principal_on_behalf_of_email: str | None = None
    principal_on_behalf_of_groups: list[str] = []


class StepInContext(Resource):
    """A step and the job that it belongs to."""

    id: str
    job: str
    """Name of the job."""
    attempt_id: str
    fileset: str
    workspace: str
    name: str
    step_spec: ShownStepSpec | None
    """null for the steps of customization jobs."""
    status: JobStatus
    status_details: JsonObject
    error_details: JsonObject | None
    auth_context: AuthContext | None = None
    """null as long as there is no authentication."""
    created_at: Timestamp
    updated_at: Timestamp


class CreateResult(Request):
    """Something that a job has made, in a fileset."""

    artifact_url: Annotated[str, Field(max_length=2048)]
    """`fileset#path` or `workspace/fileset#path`, with or without `fileset://`; without a path the whole fileset."""
    artifact_storage_type: Literal["fileset"] = "fileset"


class JobResult(Resource):
    """Something that a job has made."""

    name: str
    job: str
    """Id of the job."""
    workspace: str
    project: str | None = None
    artifact_url: str
    artifact_storage_type: str
    download_url: str | None = None
    created_at: Timestamp
    updated_at: Timestamp


class SubprocessProfile(Resource):
    """How processes of steps are treated."""

    ttl_seconds_before_active: int | None = None
    """null = a step may wait for ever."""
    ttl_seconds_active: int | None = None
    """null = a step may take for ever."""
    ttl_seconds_after_finished: int | None = None
    """After so many seconds what a job stored is deleted; its logs stay."""
    cleanup_completed_jobs_immediately: bool = False
    env: dict[str, str] = {}
    working_directory: str
    graceful_shutdown_timeout_seconds: int
    """From SIGTERM to SIGKILL."""


class ExecutionProfile(Resource):
    """A way in which steps are run here."""

    provider: str
    profile: str
    backend: str
    config: SubprocessProfile
