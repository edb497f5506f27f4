"""Deployment configs, deployments and the gateway's own answers on the wire."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.api.base import Name, ProjectName, Request, Resource, Timestamp


class DeploymentStatus(StrEnum):
    """Where a deployment stands."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    READY = "READY"
    ERROR = "ERROR"
    DELETING = "DELETING"
    DELETED = "DELETED"


class ServedModel(Request):
    """Which model entity is served."""

    model_namespace: Annotated[str, Field(max_length=255)] | None = None
    """Workspace of the model; null = the config's own."""
    model_name: Annotated[str, Field(max_length=255)] | None = None
    """`name`, or `workspace/name`."""
    lora_enabled: bool = False
    """Whether the model's enabled adapters are served beside it."""


class Executor(Request):
    """What the serving process runs on."""

    gpu: Annotated[int, Field(ge=0, le=1)]
    """Devices asked for; served on the processor where the machine has no GPU."""


class CreateDeploymentConfig(Request):
    """A new recipe for deployments."""

    name: Name
    description: Annotated[str, Field(max_length=1000)] | None = None
    project: ProjectName | None = None
    engine: Literal["nim"]
    """nim = the embedded engine."""
    model_spec: ServedModel
    executor_config: Executor
    model_entity_id: Annotated[str, Field(max_length=255)] | None = None
    """`workspace/name` of the model; null takes it from model_spec."""


class DeploymentConfig(Resource):
    """A recipe for deployments."""

    id: str
    name: str
    workspace: str
    project: str | None = None
    created_at: Timestamp
    updated_at: Timestamp
    entity_version: int
    description: str | None = None
    engine: str
    model_spec: ServedModel
    executor_config: Executor
    model_entity_id: str | None = None


class CreateDeployment(Request):
    """A new serving process."""

    name: Name
    config: Annotated[str, Field(min_length=1, max_length=255)]
    """Name of a deployment config, `name` or `workspace/name`."""
    project: ProjectName | None = None


class StatusChange(Resource):
    """A moment at which a deployment's status moved."""

    timestamp: str
    """UTC with a Z."""
    status: DeploymentStatus
    status_message: str


class ModelDeployment(Resource):
    """A serving process, and how it is doing."""

    id: str
    name: str
    workspace: str
    project: str | None = None
    created_at: Timestamp
    updated_at: Timestamp
    entity_version: int
    config: str
    config_version: int
    status: DeploymentStatus
    status_message: str
    status_history: list[StatusChange]
    model_provider_id: str | None = None


class GatewayModel(Resource):
    """A model as the OpenAI route lists it."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class GatewayModels(Resource):
    """What the OpenAI route lists."""

    object: Literal["list"] = "list"
    data: list[GatewayModel]
