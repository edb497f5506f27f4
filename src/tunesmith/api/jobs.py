"""Jobs on the wire: as the customization API and as the jobs service show them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from tunesmith.api.base import JsonObject, Listing, ProjectName, Request, Resource, Timestamp
from tunesmith.api.job_steps import ShownPlatformSpec
from tunesmith.spec.automodel import AutomodelJobInput, AutomodelJobOutput
from tunesmith.spec.rl import RlJobInput, RlJobOutput
from tunesmith.spec.unsloth import UnslothJobInput, UnslothJobOutput

JOBS = Listing(page_size=10, sortable=("created_at", "updated_at", "name"))


class JobStatus(StrEnum):
    """Where a job or a step stands."""

    CREATED = "created"
    PENDING = "pending"
    ACTIVE = "active"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    ERROR = "error"
    COMPLETED = "completed"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"

    @property
    def final(self) -> bool:
        """Whether nothing can follow."""
        return self in FINAL


FINAL = frozenset({JobStatus.CANCELLED, JobStatus.ERROR, JobStatus.COMPLETED})

DOWNLOAD, TRAINING, UPLOAD, REGISTRATION = STEPS = (
    "model-and-dataset-download",
    "training",
    "model-upload",
    "model-entity-creation",
)
"""The steps of a customization job, in order; clients key on these names."""


class CreateJob(Request):
    """What a new customization job has beside its spec, in every dialect."""

    name: str | None = None
    """2 to 51 characters; null makes one."""
    description: str | None = None
    project: ProjectName | None = None
    ownership: JsonObject | None = None
    custom_fields: JsonObject | None = None
    """`priority`, a whole number, says who goes first: the higher, the sooner; null = 0."""


class CreateAutomodelJob(CreateJob):
    """A new job in the automodel dialect."""

    spec: AutomodelJobInput


class CreateUnslothJob(CreateJob):
    """A new job in the unsloth dialect."""

    spec: UnslothJobInput


class CreateRlJob(CreateJob):
    """A new job in the rl dialect."""

    spec: RlJobInput


class LogRequest(Request, use_attribute_docstrings=True):  # FastAPI reads a query's from the fields themselves
    """Which part of a log."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    """Lines."""
    page_cursor: str | None = None
    """`next_page` of an earlier answer."""
    attempt_id: str | None = None
    """Only lines of this attempt; null = of all."""
    step_id: str | None = None
    """Only lines of the step with this id or name."""
    task_id: str | None = None
    """Only lines of the task with this id or name."""


class Task(Resource):
    """The process behind a step."""

    id: str
    name: str
    status: JobStatus
    status_details: JsonObject
    error_details: JsonObject | None
    error_stack: str | None
    created_at: Timestamp
    updated_at: Timestamp


class Step(Resource):
    """One of the four stages of a job, shown from the moment it exists."""

    id: str
    name: str
    status: JobStatus
    status_details: JsonObject
    error_details: JsonObject | None
    tasks: list[Task]
    created_at: Timestamp
    updated_at: Timestamp


class JobState(Resource):
    """How a job is doing."""

    id: str
    name: str
    status: JobStatus
    status_details: JsonObject
    """All steps' details merged: step, max_steps, train_loss, metrics, tokens_per_second, warnings ..."""
    error_details: JsonObject | None
    steps: list[Step]
    created_at: Timestamp
    updated_at: Timestamp


class CustomizationJob(Resource):
    """A job as the customization API shows it, with its spec as it runs (or as the door shows it that it came through).

    The routes of a dialect document the spec by a class of their own: `AutomodelJob` and so on.
    """

    id: str
    name: str
    description: str | None = None
    project: str | None = None
    workspace: str
    created_at: Timestamp
    updated_at: Timestamp
    spec: JsonObject
    status: JobStatus
    status_details: JsonObject
    error_details: JsonObject | None
    steps: list[Step]
    ownership: JsonObject | None = None
    custom_fields: JsonObject | None = None


class AutomodelJob(CustomizationJob):
    """A job in the automodel dialect."""

    spec: AutomodelJobOutput  # type: ignore[assignment]


class UnslothJob(CustomizationJob):
    """A job in the unsloth dialect."""

    spec: UnslothJobOutput  # type: ignore[assignment]


class RlJob(CustomizationJob):
    """A job in the rl dialect."""

    spec: RlJobOutput  # type: ignore[assignment]


class Job(Resource):
    """A job as the jobs service shows it."""

    id: str
    attempt_id: str
    name: str
    workspace: str
    project: str | None = None
    description: str | None = None
    source: str
    spec: dict[str, Any]
    platform_spec: ShownPlatformSpec
    fileset: str
    status: JobStatus
    status_details: JsonObject
    error_details: JsonObject | None
    created_at: Timestamp
    updated_at: Timestamp
    ownership: JsonObject | None = None
    custom_fields: JsonObject | None = None


class LogLine(Resource):
    """One line that a job's process wrote."""

    timestamp: Timestamp
    job: str
    job_step: str
    job_task: str
    message: str


class LogPage(Resource):
    """Some lines of a log, and the cursors to their neighbours."""

    data: list[LogLine]
    total: int
    next_page: str | None
    prev_page: str | None
