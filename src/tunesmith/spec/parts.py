"""Parts that more than one dialect has: the adapter, the spread over devices, the rules that tie numbers together."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, PositiveInt, model_validator

from tunesmith.spec.base import DeploymentParams, Spec, Text

Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Beta = BelowOne


class Lora(Spec):
    """Low-rank adapters beside frozen weights."""

    rank: PositiveInt = 16
    """Rank of the two small matrices. Higher learns more and costs more memory."""
    alpha: PositiveInt = 32
    """Scale: an adapter's output is multiplied by alpha / rank."""
    dropout: BelowOne = 0.0
    """Probability that an adapter's input element is zeroed while training."""
    merge: bool = False
    """Add the adapter to the base weights at the end and register a model instead of an adapter."""
    target_modules: list[Text] | None = None
    """Patterns of module names to adapt (`q_proj`, `*proj`); null adapts every linear layer but the output head."""
    exclude_modules: list[Text] | None = None
    """Patterns of module names to leave out."""
    use_triton: bool = True
    """Use Triton kernels where there are any (CUDA only)."""


class Degrees(Spec):
    """How the work is spread over devices."""

    num_nodes: PositiveInt = 1
    """Machines."""
    num_gpus_per_node: PositiveInt = 1
    """Devices on each machine."""
    tensor_parallel_size: PositiveInt = 1
    """Devices that share each layer's matrices."""
    pipeline_parallel_size: PositiveInt = 1
    """Devices that hold different layers."""
    context_parallel_size: PositiveInt = 1
    """Devices that share one long sequence."""
    sequence_parallel: bool = False
    """Also split the work between tensor-parallel layers along the sequence."""

    @model_validator(mode="after")
    def _devices_divide(self) -> Self:
        t, p, c = self.tensor_parallel_size, self.pipeline_parallel_size, self.context_parallel_size
        if self.devices % (t * p * c):
            raise ValueError(
                f"Total GPUs ({self.devices}) must be divisible by tensor_parallel_size ({t}) * "
                f"pipeline_parallel_size ({p}) * context_parallel_size ({c}) = {t * p * c}: "
                f"use {t * p * c} GPUs or a multiple, or smaller degrees"
            )
        return self

    @property
    def devices(self) -> int:
        """Over all nodes."""
        return self.num_nodes * self.num_gpus_per_node

    @property
    def data_parallel_size(self) -> int:
        """Replicas of the model: total devices / (tensor x pipeline x context)."""
        return self.devices // (self.tensor_parallel_size * self.pipeline_parallel_size * self.context_parallel_size)


def fill_in_lora(given: Any, finetuning_type: str = "lora") -> Any:
    """A training section as sent, with an adapter block where one is trained; `finetuning_type` is the default."""
    if not isinstance(given, dict) or given.get("lora") is not None:
        return given
    trains_lora = str(given.get("finetuning_type", finetuning_type)).startswith("lora")
    return {**given, "lora": {}} if trains_lora else given


def check_batch(field: str, rows: int, micro: int, replicas: int) -> None:
    """ValueError unless each replica gets whole micro batches out of a step's rows."""
    each = micro * replicas
    if rows % each:
        below, above = rows // each * each, (rows // each + 1) * each
        way_out = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"{field} ({rows}) must be divisible by micro_batch_size ({micro}) * data_parallel_size ({replicas}) "
            f"= {each}: {way_out} would do"
        )


def check_decay(minimum: float | None, peak: float) -> None:
    """ValueError when the learning rate would have to rise to get to its minimum."""
    if minimum is not None and minimum > peak:
        raise ValueError(
            f"min_learning_rate ({minimum:g}) must not be above learning_rate ({peak:g}): "
            "lower the one or raise the other"
        )


def check_interval(interval: float | None) -> None:
    """ValueError for two and a half steps."""
    if interval is not None and interval > 1 and interval != int(interval):
        raise ValueError(
            f"val_check_interval ({interval}) must be a whole number of steps when it is above 1: "
            f"{int(interval)} would do, or a part of an epoch between 0 and 1"
        )


def check_deployment(config: str | DeploymentParams | None, makes_adapter: bool) -> None:
    """ValueError for a deployment that could not serve the adapter it is made for."""
    if makes_adapter and isinstance(config, DeploymentParams) and not config.lora_enabled:
        raise ValueError(
            "deployment_config.lora_enabled must be true (or omitted) when training a LoRA adapter: "
            "with false the deployment would serve the base alone"
        )
