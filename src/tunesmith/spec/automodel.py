"""The automodel dialect: the grammar of a job on one or many devices, with every field, default and rule.

Rules that need the model, the data set or the machine are in `tunesmith.planning.automodel`.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tunesmith.spec.base import DeploymentParams, Integrations, Spec, Text
from tunesmith.spec.parts import (
    Beta,
    Degrees,
    Fraction,
    Lora,
    check_batch,
    check_decay,
    check_deployment,
    check_interval,
    fill_in_lora,
)


class Dataset(Spec):
    """Where the rows come from."""

    training: Text
    """Fileset with the training rows: `name`, `workspace/name` or `fileset://workspace/name`."""
    validation: Text | None = None
    """Fileset with validation rows; null uses the training fileset's validation files, else a tenth of its rows."""
    prompt_template: Text | None = None
    """Template that makes prompt and completion out of a row with other keys."""


class Training(Spec):
    """Which method trains which weights."""

    training_type: Literal["sft", "distillation"] = "sft"
    """sft = learn the rows; distillation = learn a teacher's answers on them."""
    finetuning_type: Literal["lora", "all_weights", "lora_merged"] = "lora"
    """lora trains an adapter, lora_merged adds it to the base weights, all_weights trains everything."""
    lora: Lora | None = None
    """The adapter; filled in when finetuning_type is lora or lora_merged."""
    max_seq_length: PositiveInt = 2048
    """Tokens a row may have; longer rows are cut."""
    precision: Literal["bf16", "fp16", "fp32", "fp8"] | None = None
    """Type of the matrix products; null = bf16 where the processor has it, else fp32."""
    attn_implementation: Literal["sdpa", "flash_attention_2", "eager"] = "sdpa"
    """Which attention function computes."""
    execution_profile: Text | None = None
    """Named place to run; null = this machine's default."""
    teacher_model: Text | None = None
    """Model entity that is imitated; required for distillation."""
    distillation_ratio: Fraction = 0.5
    """0 = only the rows count, 1 = only the teacher counts."""
    distillation_temperature: PositiveFloat = 1.0
    """Softens both distributions before they are compared."""
    teacher_precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Type of the frozen teacher's weights."""
    offload_teacher: bool = False
    """Keep the teacher in main memory between its turns."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_lora(cls, given: Any) -> Any:
        return fill_in_lora(given)

    @model_validator(mode="after")
    def _distillation_needs_a_teacher(self) -> Self:
        if self.training_type == "distillation" and self.teacher_model is None:
            raise ValueError(
                "teacher_model is required when training_type is distillation: name the model entity to imitate"
            )
        return self

    @property
    def makes_adapter(self) -> bool:
        """Whether the result is an adapter, not a model."""
        return self.finetuning_type == "lora" and not (self.lora and self.lora.merge)


class Schedule(Spec):
    """How long to train and when to look."""

    epochs: PositiveInt = 1
    """Passes over the training rows."""
    max_steps: PositiveInt | None = None
    """Stop after this many optimizer steps even if the epochs are not through."""
    val_check_interval: NonNegativeFloat | None = None
    """null or 0 = validate after each epoch; up to 1 = this part of an epoch; above 1 = this many steps."""
    seed: NonNegativeInt | None = None
    """Seed of everything random; null = 1111."""

    @model_validator(mode="after")
    def _interval_in_steps_is_whole(self) -> Self:
        check_interval(self.val_check_interval)
        return self


class Batch(Spec):
    """How many rows are learned from at once."""

    global_batch_size: PositiveInt = 8
    """Rows per optimizer step, over all data-parallel replicas."""
    micro_batch_size: PositiveInt = 1
    """With max_seq_length, the memory promise of one forward pass per device: so many full-length rows fit."""
    sequence_packing: bool = False
    """Put several rows into one sequence. A step takes as many as hold global_batch_size rows on average; no row sees
    another."""
    sequence_packing_max_samples: PositiveInt = 1000
    """Rows that are looked at together when they are put into sequences."""


class Optimizer(Spec):
    """One Adam variant and its learning rate."""

    learning_rate: PositiveFloat = 5e-6
    """Peak learning rate."""
    min_learning_rate: NonNegativeFloat | None = None
    """Where the decay ends; null = 0."""
    weight_decay: NonNegativeFloat = 0.01
    """Strength of weight decay."""
    adam_beta1: Beta = 0.9
    """Decay of the gradient's running mean."""
    adam_beta2: Beta = 0.999
    """Decay of the squared gradient's running mean."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises from 0."""
    adam_eps: PositiveFloat = 1e-8
    """Added to the denominator."""
    optimizer: Literal["Adam", "AdamW"] = "Adam"
    """Adam = weight decay in the gradient, AdamW = decoupled weight decay."""
    lr_decay_style: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""

    @model_validator(mode="after")
    def _decay_goes_down(self) -> Self:
        check_decay(self.min_learning_rate, self.learning_rate)
        return self


class Parallelism(Degrees):
    """How the work is spread over devices."""

    expert_parallel_size: PositiveInt | None = None
    """Devices that share the experts of a mixture-of-experts model."""


class OutputRequest(Spec):
    """What the result is called."""

    name: Text
    """Name of the adapter or model, and of the fileset with its files."""
    description: str | None = None
    """Free text stored on the result."""


class OutputResponse(OutputRequest):
    """What the result is called, and what it is."""

    type: Literal["adapter", "model"]
    """adapter for lora without merge, model otherwise."""
    fileset: str
    """Name of the fileset with the result's files."""


class AutomodelSpec(Spec):
    """The sections of an automodel job, as asked for and as resolved."""

    name: str | None = None
    """Ignored label, kept for clients that send it."""
    model: Text
    """Model entity to fine-tune: `name` or `workspace/name`."""
    dataset: Dataset
    """Where the rows come from."""
    training: Training
    """Which method trains which weights."""
    schedule: Schedule = Schedule()
    """How long to train and when to look."""
    batch: Batch = Batch()
    """How many rows are learned from at once."""
    optimizer: Optimizer = Optimizer()
    """One Adam variant and its learning rate."""
    parallelism: Parallelism = Parallelism()
    """How the work is spread over devices."""
    integrations: Integrations | None = None
    """Experiment trackers that follow the run."""
    deployment_config: Text | DeploymentParams | None = None
    """Deployment to start when the job is done: parameters, or the name of a deployment config."""

    @model_validator(mode="before")
    @classmethod
    def _removed_fields(cls, given: Any) -> Any:
        if isinstance(given, dict) and "output_model" in given:
            raise ValueError("spec.output_model was removed. Use spec.output instead.")
        return given

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        batch = self.batch
        replicas = self.parallelism.data_parallel_size
        check_batch("batch.global_batch_size", batch.global_batch_size, batch.micro_batch_size, replicas)
        return self

    @model_validator(mode="after")
    def _deployment_serves_the_result(self) -> Self:
        check_deployment(self.deployment_config, self.training.makes_adapter)
        return self


class AutomodelJobInput(AutomodelSpec):
    """An automodel job as the user asks for it."""

    output: OutputRequest | None = None
    """What the result is called; null makes a name out of model and data set."""


class AutomodelJobOutput(AutomodelSpec):
    """An automodel job as it runs: references resolved, defaults and output filled in."""

    output: OutputResponse
    """What the result is called, and what it is."""
