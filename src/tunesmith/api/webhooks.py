"""Webhooks on the wire: whom the platform tells when a job's status changes, and what it says."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.api.base import JsonObject, Listing, Name, ProjectName, Request, Resource, Timestamp
from tunesmith.api.jobs import JobStatus
from tunesmith.api.secrets import SecretRef

WEBHOOKS = Listing()


class CreateWebhook(Request):
    """An address that is told of every change of a job's status in the workspace."""

    name: Name
    url: Annotated[str, Field(max_length=2048)]
    """Gets a POST. Its host must be one of the server's setting TUNESMITH_WEBHOOK_HOSTS."""
    secret: SecretRef
    """`name` or `workspace/name` of the secret that signs; `whsec_` and base64, or any text, which is its own key."""
    statuses: list[JobStatus] = []
    """Only changes to one of these are told; [] = all."""
    description: str | None = None
    project: ProjectName | None = None


class Webhook(Resource):
    """An address that is told of every change of a job's status in the workspace."""

    id: str
    name: str
    workspace: str
    url: str
    secret: str
    """`workspace/name` of the secret that signs."""
    statuses: list[JobStatus]
    """Only changes to one of these are told; [] = all."""
    owed: int
    """Deliveries that have not arrived yet."""
    description: str | None = None
    project: str | None = None
    created_at: Timestamp
    updated_at: Timestamp


class ChangedJob(Resource):
    """The job whose status has changed."""

    id: str
    name: str
    workspace: str
    source: str
    status: JobStatus
    previous: JobStatus | None = None
    """The status before; null when the job is new."""
    error_details: JsonObject | None = None


class JobChanged(Resource):
    """The body of a delivery."""

    type: Literal["job.status"] = "job.status"
    timestamp: str
    """When the status changed: ISO 8601, UTC."""
    data: ChangedJob
