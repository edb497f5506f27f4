"""What all dialects share: closed, frozen models whose attribute docstrings are the one source of their field docs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from tunesmith.described import Described


class Spec(Described):
    """A part of a job in the user's words. Unknown keys are refused at the door."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


SecretRef = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+(/[a-z0-9_-]+)?$")]
"""`name` or `workspace/name` of a secret."""

Text = Annotated[str, StringConstraints(min_length=1)]


class WandbIntegration(Spec):
    """Where to send metrics with Weights & Biases."""

    project: str | None = None
    """Project in Weights & Biases."""
    name: str | None = Field(default=None, validation_alias=AliasChoices("name", "run_name"))
    """Name of the run; the job's name when null. May be sent as `run_name`, too."""
    entity: str | None = None
    """User or team that owns the project."""
    tags: list[str] | None = None
    """Tags of the run."""
    notes: str | None = None
    """Free text shown on the run."""
    base_url: str | None = None
    """Address of a self-hosted server."""
    api_key_secret: SecretRef | None = None
    """Secret that holds the API key."""


class MlflowIntegration(Spec):
    """Where to send metrics with MLflow."""

    experiment_name: str | None = None
    """Experiment the run belongs to."""
    name: str | None = None
    """Name of the run; the job's name when null."""
    tags: dict[str, str] | None = None
    """Tags of the run."""
    description: str | None = None
    """Free text shown on the run."""
    tracking_uri: str | None = None
    """Address of the tracking server."""


class Integrations(Spec):
    """Experiment trackers that follow the run."""

    wandb: WandbIntegration | None = None
    """Weights & Biases."""
    mlflow: MlflowIntegration | None = None
    """MLflow."""


class ToolCalls(Spec):
    """How a deployment reads tool calls out of answers."""

    tool_call_parser: str | None = None
    """Name of a built-in parser."""
    tool_call_plugin: Annotated[str, StringConstraints(pattern=r"^[\w\-.]+/[\w\-.]+$")] | None = None
    """Parser code in a fileset."""
    auto_tool_choice: bool | None = None
    """Whether the model may choose a tool by itself."""


class DeploymentParams(Spec):
    """The deployment that the job starts when it is done."""

    gpu: int = 1
    """GPUs of the deployment."""
    additional_envs: dict[str, str] | None = None
    """Environment variables of the serving process."""
    disk_size: str | None = None
    """Disk of the serving process, as Kubernetes writes sizes."""
    image_name: str | None = None
    """Container image."""
    image_tag: str | None = None
    """Tag of the container image."""
    lora_enabled: bool = True
    """Whether adapters are served beside the base."""
    tool_call_config: ToolCalls | None = None
    """How tool calls are read."""


def leaves(spec: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted path and value of each leaf; a part that is null is itself a leaf."""
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        path = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def leaf(spec: BaseModel, path: str) -> Any:
    """The value at a dotted path; None when a part on the way is null."""
    value: Any = spec
    for name in path.split("."):
        if value is None:
            return None
        value = getattr(value, name)
    return value
