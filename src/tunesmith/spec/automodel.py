"""The automodel dialect: the grammar of a job on one or many devices, with every field, default and rule.

Rules that need the model, the data set or the machine are in `tunesmith.planning.automodel`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tunesmith.spec.base import DeploymentParams, Integrations, Spec, Text

Fraction = Annotated[float, Field(ge=0, le=1)]


class Dataset(Spec):
    """Where the rows come from."""

    training: Text
    """Fileset with the training rows: `name`, `workspace/name` or `fileset://workspace/name`."""
    validation: Text | None = None
    """Fileset with validation rows; null uses the training fileset's validation files, else a tenth of its rows."""
    prompt_template: Text | None = None
    """Template that makes prompt and completion out of a row with other keys."""


class Lora(Spec):
    """Low-rank adapters beside frozen weights."""

    rank: PositiveInt = 16
    """Rank of the two small matrices. Higher learns more and costs more memory."""
    alpha: PositiveInt = 32
    """Scale: an adapter's output is multiplied by alpha / rank."""
    dropout: Fraction = 0.0
    """Probability that an adapter's input element is zeroed while training."""
    merge: bool = False
    """Add the adapter to the base weights at the end and register a model instead of an adapter."""
    target_modules: list[Text] | None = None
    """Patterns of module names to adapt (`q_proj`, `*proj`); null adapts every linear layer but the output head."""
    exclude_modules: list[Text] | None = None
    """Patterns of module names to leave out."""
    use_triton: bool = True
    """Use Triton kernels where there are any (CUDA only)."""


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
        if not isinstance(given, dict) or given.get("lora") is not None:
            return given
        trains_lora = str(given.get("finetuning_type", "lora")).startswith("lora")
        return {**given, "lora": {}} if trains_lora else given

    @model_validator(mode="after")
    def _distillation_needs_a_teacher(self) -> Self:
        if self.training_type == "distillation" and self.teacher_model is None:
            raise ValueError("teacher_model is required when training_type is distillation")
        return self


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
        interval = self.val_check_interval
        if interval is not None and interval > 1 and interval != int(interval):
            raise ValueError(
                f"val_check_interval ({interval}) must be a whole number of steps when it is above 1: "
                f"{int(interval)} would do, or a part of an epoch between 0 and 1"
            )
        return self


class Batch(Spec):
    """How many rows are learned from at once."""

    global_batch_size: PositiveInt = 8
    """Rows per optimizer step, over all data-parallel replicas."""
    micro_batch_size: PositiveInt = 1
    """With max_seq_length, the memory promise of one forward pass per device: so many full-length rows fit."""
    sequence_packing: bool = False
    """Put several rows into one sequence instead of padding each."""
    sequence_packing_max_samples: PositiveInt = 1000
    """Rows looked at when sequences are packed."""


class Optimizer(Spec):
    """One Adam variant and its learning rate."""

    learning_rate: PositiveFloat = 5e-6
    """Peak learning rate."""
    min_learning_rate: NonNegativeFloat | None = None
    """Where the decay ends; null = 0."""
    weight_decay: NonNegativeFloat = 0.01
    """Strength of weight decay."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the gradient's running mean."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
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
        if self.min_learning_rate is not None and self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate ({self.min_learning_rate:g}) must not be above learning_rate "
                f"({self.learning_rate:g}): lower the one or raise the other"
            )
        return self


class Parallelism(Spec):
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
    expert_parallel_size: PositiveInt | None = None
    """Devices that share the experts of a mixture-of-experts model."""
    sequence_parallel: bool = False
    """Also split the work between tensor-parallel layers along the sequence."""

    @model_validator(mode="after")
    def _devices_divide(self) -> Self:
        total = self.num_nodes * self.num_gpus_per_node
        t, p, c = self.tensor_parallel_size, self.pipeline_parallel_size, self.context_parallel_size
        if total % (t * p * c):
            raise ValueError(
                f"Total GPUs ({total}) must be divisible by tensor_parallel_size ({t}) * pipeline_parallel_size ({p}) "
                f"* context_parallel_size ({c}) = {t * p * c}: use {t * p * c} GPUs or a multiple, or smaller degrees"
            )
        return self

    @property
    def data_parallel_size(self) -> int:
        """Replicas of the model: total devices / (tensor x pipeline x context)."""
        split = self.tensor_parallel_size * self.pipeline_parallel_size * self.context_parallel_size
        return self.num_nodes * self.num_gpus_per_node // split


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
        g, m, d = self.batch.global_batch_size, self.batch.micro_batch_size, self.parallelism.data_parallel_size
        if g % (m * d):
            below, above = g // (m * d) * m * d, (g // (m * d) + 1) * m * d
            way_out = f"{below} or {above}" if below else f"{above}"
            raise ValueError(
                f"batch.global_batch_size ({g}) must be divisible by micro_batch_size ({m}) * data_parallel_size ({d}) "
                f"= {m * d}: {way_out} would do"
            )
        return self

    @model_validator(mode="after")
    def _experts_divide(self) -> Self:
        p = self.parallelism
        e = p.expert_parallel_size or 1
        shared = p.data_parallel_size * p.context_parallel_size
        if shared % e:
            raise ValueError(
                f"(data_parallel_size * context_parallel_size) ({shared}) must be divisible by "
                f"parallelism.expert_parallel_size ({e})"
            )
        if e > 1 and p.tensor_parallel_size > 1:
            raise ValueError(
                f"parallelism.tensor_parallel_size ({p.tensor_parallel_size}) must be 1 when expert_parallel_size "
                f"({e}) is above 1"
            )
        return self


class AutomodelJobInput(AutomodelSpec):
    """An automodel job as the user asks for it."""

    output: OutputRequest | None = None
    """What the result is called; null makes a name out of model and data set."""


class AutomodelJobOutput(AutomodelSpec):
    """An automodel job as it runs: references resolved, defaults and output filled in."""

    output: OutputResponse
    """What the result is called, and what it is."""
