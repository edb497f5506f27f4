"""The unsloth dialect: the grammar of a job on one device, with every field, default and rule.

Rules that need the model, the data set or the machine are in `tunesmith.planning.unsloth`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, StringConstraints
from pydantic import model_validator as validator

from tunesmith.spec.base import DeploymentParams, Integrations, Spec, Text
from tunesmith.spec.parts import BelowOne, Beta, Fraction, check_deployment, fill_in_lora

SaveMethod = Literal["lora", "merged_16bit", "merged_4bit"]


class UnslothModel(Spec):
    """The base model and how it is loaded."""

    name: Text
    """Model entity to fine-tune: `name` or `workspace/name`."""
    max_seq_length: PositiveInt = 2048
    """Tokens a row may have; longer rows are cut."""
    load_in_4bit: bool = True
    """Hold the frozen weights in 4 bits."""
    load_in_8bit: bool = False
    """Hold the frozen weights in 8 bits."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type that a model's weights are stored in; auto = the type that computes. An adapter is stored in float32."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoint."""
    device_map: str | int | dict[str, int] | None = None
    """Which device holds which module; null = all of them on the one that trains."""
    rope_scaling: dict[str, Any] | None = None
    """Stretches the model's context; null = as the checkpoint says."""

    @validator(mode="after")
    def _one_quantisation(self) -> Self:
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError(
                "model.load_in_4bit and model.load_in_8bit are mutually exclusive: both are true; "
                "load_in_4bit is true unless you say false"
            )
        return self


class UnslothDataset(Spec):
    """Where the rows come from."""

    path: Text
    """Fileset with the training rows: `name`, `workspace/name` or `fileset://workspace/name`."""
    text_field: Text = "text"
    """Key of a row whose value is trained on whole."""
    apply_chat_template: bool = False
    """Render rows with `messages` by the chat template."""
    validation_path: Text | None = None
    """Fileset with validation rows; null takes the training fileset's validation files. No row is held back."""
    packing: bool = False
    """Put several rows into one sequence. A step takes as many as hold its number of rows on average; no row sees
    another."""


SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class UnslothLora(Spec):
    """Low-rank adapters beside frozen weights."""

    rank: PositiveInt = 16
    """Rank of the two small matrices. Higher learns more and costs more memory."""
    alpha: PositiveInt = 16
    """Scale: an adapter's output is multiplied by alpha / rank."""
    dropout: BelowOne = 0.0
    """Probability that an adapter's input element is zeroed while training."""
    target_modules: list[Text] = SEVEN
    """Names of the modules to adapt."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained too."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead."""
    random_state: int = 3407
    """Seed of the adapter's start values."""
    use_dora: bool = False
    """Train the length of each weight's rows apart from their direction."""
    loftq_config: dict[str, Any] | None = None
    """Start values that make up for what quantisation lost."""
    modules_to_save: list[Text] | None = None
    """Modules that are trained whole and saved beside the adapter."""
    layers_to_transform: int | list[int] | None = None
    """Numbers of the layers to adapt; null = all."""
    layer_replication: list[list[int]] | None = None
    """Layers to repeat, as [start, end) pairs."""
    init_lora_weights: bool | Literal["gaussian", "pissa", "olora", "loftq"] = True
    """How the adapter starts; true = A uniform, B zero."""


class UnslothTraining(Spec):
    """Which weights are trained."""

    training_type: Literal["sft"] = "sft"
    """sft = learn the rows."""
    finetuning_type: Literal["lora", "all_weights"] = "lora"
    """lora trains an adapter, all_weights trains everything."""
    lora: UnslothLora | None = None
    """The adapter; filled in when finetuning_type is lora."""
    use_gradient_checkpointing: Literal["unsloth", "true", "false"] = "unsloth"
    """Compute a layer's activations again in the backward pass instead of keeping them. unsloth = so, with what is kept
    between layers in main memory; true = so; false = keep all."""

    @validator(mode="before")
    @classmethod
    def _fill_in_lora(cls, given: Any) -> Any:
        return fill_in_lora(given)

    @validator(mode="after")
    def _adapter_only_for_lora(self) -> Self:
        if self.finetuning_type == "all_weights" and self.lora is not None:
            raise ValueError(
                "training.lora must be unset when finetuning_type='all_weights': "
                "leave it out, or set finetuning_type to lora"
            )
        return self


class UnslothSchedule(Spec):
    """How long to train and when to look."""

    epochs: PositiveInt = 1
    """Passes over the training rows."""
    max_steps: PositiveInt | None = None
    """Train exactly this many optimizer steps, whatever `epochs` says."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises from 0."""
    warmup_ratio: Fraction | None = None
    """The same as a part of all steps."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts"] = (
        "linear"
    )
    """How the learning rate falls after the warm-up."""
    logging_steps: PositiveInt = 1
    """Show the loss each time this many steps have passed."""
    save_steps: PositiveInt | None = None
    """Write a checkpoint each time this many steps have passed; null = after each epoch."""
    eval_steps: PositiveInt | None = None
    """Validate each time this many steps have passed; null = at the end."""
    seed: int = 3407
    """Seed of everything random but the adapter's start values."""
    lr_scheduler_kwargs: dict[str, Any] | None = None
    """Further arguments of the learning rate's curve: `num_cycles` of cosine_with_restarts, how often it falls from the
    peak (1 unless given)."""

    @property
    def cycles(self) -> int:
        """How often the learning rate falls from its peak."""
        return int((self.lr_scheduler_kwargs or {}).get("num_cycles", 1))

    @validator(mode="after")
    def _curve_takes_its_arguments(self) -> Self:
        given = self.lr_scheduler_kwargs or {}
        if not given:
            return self
        if self.lr_scheduler_type != "cosine_with_restarts":
            raise ValueError(
                f"schedule.lr_scheduler_kwargs: lr_scheduler_type '{self.lr_scheduler_type}' takes no arguments; leave "
                "them out, or set it to cosine_with_restarts, which takes num_cycles"
            )
        if unknown := sorted(given.keys() - {"num_cycles"}):
            raise ValueError(
                f"schedule.lr_scheduler_kwargs: cosine_with_restarts takes num_cycles only, not {', '.join(unknown)}"
            )
        cycles = given["num_cycles"]
        if isinstance(cycles, bool) or not isinstance(cycles, int) or cycles < 1:
            raise ValueError(
                f"schedule.lr_scheduler_kwargs.num_cycles ({str(cycles)[:40]}) must be a whole number from 1 up: how "
                "often the learning rate falls from its peak"
            )
        return self

    @validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps and self.warmup_ratio is not None:
            raise ValueError(
                "schedule.warmup_steps and schedule.warmup_ratio are mutually exclusive: "
                f"they are {self.warmup_steps} and {self.warmup_ratio:g}; leave one out"
            )
        return self


class UnslothBatch(Spec):
    """How many rows are learned from at once: per_device_train_batch_size x gradient_accumulation_steps."""

    per_device_train_batch_size: PositiveInt = 1
    """With max_seq_length, the memory promise of one forward pass: so many full-length rows fit."""
    gradient_accumulation_steps: PositiveInt = 1
    """Forward passes per optimizer step."""


class UnslothOptimizer(Spec):
    """One optimizer and its learning rate."""

    learning_rate: PositiveFloat = 2e-4
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Strength of weight decay."""
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "sgd"] = "adamw_8bit"
    """Which optimizer; the 8-bit ones hold their state in a quarter of the memory. Fused makes no difference here."""
    adam_beta1: Beta = 0.9
    """Decay of the gradient's running mean."""
    adam_beta2: Beta = 0.999
    """Decay of the squared gradient's running mean."""
    adam_epsilon: PositiveFloat = 1e-8
    """Added to the denominator."""
    max_grad_norm: NonNegativeFloat = 1.0
    """The gradient's length is cut to this; 0 = never."""
    label_smoothing_factor: BelowOne = 0.0
    """Part of the target's probability that is spread over all tokens."""
    neftune_noise_alpha: NonNegativeFloat | None = None
    """Strength of noise on the embeddings while training."""


class UnslothHardware(Spec):
    """Which device, and in which type it computes."""

    gpus: Annotated[str, StringConstraints(pattern=r"^(\d+(\s*,\s*\d+)*)?$", strip_whitespace=True)] | None = None
    """Numbers of the devices to choose one among, such as `0` or `0,1`; null = any."""
    precision: Literal["bf16", "fp16"] = "bf16"
    """Type of the matrix products."""


class UnslothOutputRequest(Spec):
    """What the result is called and how it is saved."""

    name: Text | None = None
    """Name of the adapter or model, and of the fileset with its files; null makes one out of model and data set."""
    description: str | None = None
    """Free text stored on the result."""
    save_method: SaveMethod = "lora"
    """lora = the adapter by itself; merged_16bit and merged_4bit add it to the base weights."""


class UnslothOutputResponse(Spec):
    """What the result is called, and what it is."""

    name: str
    """Name of the adapter or model."""
    type: Literal["adapter", "model"]
    """adapter for lora that is not merged, model otherwise."""
    save_method: SaveMethod
    """lora = the adapter by itself; merged_16bit and merged_4bit add it to the base weights."""
    fileset: str
    """Name of the fileset with the result's files."""
    description: str | None = None
    """Free text stored on the result."""


class UnslothSpec(Spec):
    """The sections of an unsloth job, as asked for and as resolved."""

    name: str | None = None
    """Ignored label, kept for clients that send it."""
    model: UnslothModel
    """The base model and how it is loaded."""
    dataset: UnslothDataset
    """Where the rows come from."""
    training: UnslothTraining = UnslothTraining()
    """Which weights are trained."""
    schedule: UnslothSchedule = UnslothSchedule()
    """How long to train and when to look."""
    batch: UnslothBatch = UnslothBatch()
    """How many rows are learned from at once."""
    optimizer: UnslothOptimizer = UnslothOptimizer()
    """One optimizer and its learning rate."""
    hardware: UnslothHardware = UnslothHardware()
    """Which device, and in which type it computes."""
    integrations: Integrations | None = None
    """Experiment trackers that follow the run."""
    deployment_config: Text | DeploymentParams | None = None
    """Deployment to start when the job is done: parameters, or the name of a deployment config."""

    @validator(mode="after")
    def _whole_weights_are_not_quantised(self) -> Self:
        asked = [field for field in ("load_in_4bit", "load_in_8bit") if getattr(self.model, field)]
        if self.training.finetuning_type == "all_weights" and asked:
            raise ValueError(
                "training.finetuning_type='all_weights' is incompatible with 4-bit/8-bit loading: "
                f"model.{asked[0]} is true; set model.load_in_4bit=false and model.load_in_8bit=false"
            )
        return self

    def check_output(self, save_method: SaveMethod) -> None:
        """ValueError for a result that this training cannot make."""
        tuned = self.training.finetuning_type
        if save_method != "lora" and tuned != "lora":
            raise ValueError(
                f"output.save_method='{save_method}' is only valid for training.finetuning_type='lora': it is "
                f"'{tuned}', which has no adapter to merge; leave save_method out"
            )
        if save_method == "merged_16bit" and self.model.dtype == "float32":
            raise ValueError(
                "output.save_method='merged_16bit' stores 16 bits a weight, and model.dtype is 'float32': "
                "set model.dtype to auto, bfloat16 or float16"
            )
        check_deployment(self.deployment_config, tuned == "lora" and save_method == "lora")


class UnslothJobInput(UnslothSpec):
    """An unsloth job as the user asks for it."""

    output: UnslothOutputRequest | None = None
    """What the result is called and how it is saved."""

    @validator(mode="after")
    def _output_fits(self) -> Self:
        self.check_output(self.output.save_method if self.output else "lora")
        return self


class UnslothJobOutput(UnslothSpec):
    """An unsloth job as it runs: references resolved, defaults and output filled in."""

    output: UnslothOutputResponse
    """What the result is called, and what it is."""

    @validator(mode="after")
    def _output_fits(self) -> Self:
        self.check_output(self.output.save_method)
        return self
