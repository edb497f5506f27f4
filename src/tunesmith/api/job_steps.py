"""What a platform job runs: its steps, each with an executor, as they are asked for and as they are shown."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from tunesmith.api.base import JsonObject, Request, Resource
from tunesmith.api.secrets import SecretRef
from tunesmith.api.workspaces import StrictName

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

StepName = StrictName


class ComputeAmounts(Request):
    """Amounts of processor and memory."""

    cpu: str | None = None
    memory: str | None = None


class ComputeResources(Request):
    """What a container asks of its node; a step that runs as a process of this machine ignores it."""

    requests: ComputeAmounts | None = None
    limits: ComputeAmounts | None = None
    num_nodes: Annotated[int, Field(ge=1)] | None = None
    num_gpus: Annotated[int, Field(ge=0)] | None = None
    shm_size: str | None = None


class Container(Request):
    """An image and what is run in it."""

    image: str
    entrypoint: list[str] = []
    command: list[str] = []


class _ContainerExecutor(Request):
    profile: str = "default"
    container: Container
    resources: ComputeResources | None = None


class CpuExecutor(_ContainerExecutor):
    """A container without GPUs; where a subprocess profile has the profile's name, it runs as a process instead."""

    provider: Literal["cpu"]


class GpuExecutor(_ContainerExecutor):
    """A container with GPUs."""

    provider: Literal["gpu"]


class DistributedGpuExecutor(_ContainerExecutor):
    """Containers with GPUs on several nodes."""

    provider: Literal["gpu_distributed"]


class SubprocessExecutor(Request):
    """A process of the machine that the platform runs on."""

    provider: Literal["subprocess"]
    profile: str = "default"
    command: list[str]
    """The program and its arguments; no shell reads it."""


Executor = Annotated[
    CpuExecutor | GpuExecutor | DistributedGpuExecutor | SubprocessExecutor, Field(discriminator="provider")
]


class SecretSource(Request):
    """A secret that a variable takes its value from."""

    name: SecretRef


class EnvironmentVariable(Request):
    """A variable in the environment of a step's process: given here, or a secret's value."""

    name: str
    value: str | None = None
    from_secret: SecretSource | None = None

    @field_validator("name")
    @classmethod
    def _lawful(cls, name: str) -> str:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"'{name[:80]}' is not a variable's name: letters, digits and _, no digit in front")
        return name

    @model_validator(mode="after")
    def _one_of_both(self) -> EnvironmentVariable:
        if self.value is not None and self.from_secret is not None:
            raise ValueError("Only one of value or from_secret may be given.")
        if self.value is None and self.from_secret is None:
            raise ValueError("One of value or from_secret must be given.")
        return self


class Lifecycle(Request):
    """How long a step may take over what."""

    staleness_timeout_seconds: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Without a status, a task's report or a line of output for so long the step is ended with an error; 0 = never."""


class StepSpec(Request):
    """One step of a new job."""

    model_config = ConfigDict(regex_engine="python-re")

    name: StepName
    executor: Executor
    config: JsonObject = {}
    """What the step's process finds as JSON in the file `$NEMO_JOB_STEP_CONFIG_FILE_PATH`."""
    environment: list[EnvironmentVariable] | None = None
    lifecycle: Lifecycle = Lifecycle()


class PlatformSpec(Request):
    """The steps of a new job, which run one after the other."""

    steps: list[StepSpec]

    @field_validator("steps")
    @classmethod
    def _some_and_distinct(cls, steps: list[StepSpec]) -> list[StepSpec]:
        if not steps:
            raise ValueError("At least one step is required in the platform spec.")
        if len({step.name for step in steps}) < len(steps):
            raise ValueError("Each step must have a unique name.")
        return steps


class ShownStepSpec(Resource):
    """A step as it will run."""

    name: str
    executor: JsonObject
    config: JsonObject = {}
    environment: list[Any] | None = None
    lifecycle: JsonObject = {"staleness_timeout_seconds": 0}


class ShownPlatformSpec(Resource):
    """The steps of a job, those included that do not exist yet."""

    steps: list[ShownStepSpec] = []
