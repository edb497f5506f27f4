"""The rl dialect: the grammar of jobs that learn from preferences (dpo) or from rewards (grpo).

Rules that need the model, the data set or the machine are in `tunesmith.planning.rl`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

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

OptimizerType = Literal[
    "adamw_with_cosine_annealing", "adam_with_cosine_annealing", "adamw_with_flat_lr", "adam_with_flat_lr"
]


class RlTraining(Spec):
    """What dpo and grpo have in common."""

    finetuning_type: Literal["lora", "all_weights", "lora_merged"] = "all_weights"
    """lora trains an adapter, lora_merged adds it to the base weights, all_weights trains everything."""
    lora: Lora | None = None
    """The adapter; filled in when finetuning_type is lora or lora_merged."""
    optimizer_type: OptimizerType | None = None
    """Adam or AdamW, and whether the learning rate falls; null = adamw_with_cosine_annealing."""
    learning_rate: NonNegativeFloat = 1e-4
    """Peak learning rate."""
    min_learning_rate: NonNegativeFloat | None = None
    """Where the decay ends; null = 0."""
    weight_decay: NonNegativeFloat = 0.01
    """Strength of weight decay."""
    adam_beta1: Beta = 0.9
    """Decay of the gradient's running mean."""
    adam_beta2: Beta = 0.999
    """Decay of the squared gradient's running mean."""
    adam_eps: PositiveFloat = 1e-5
    """Added to the denominator."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises from 0."""
    max_grad_norm: NonNegativeFloat = 1.0
    """The gradient's length is cut to this; 0 = never."""
    epochs: PositiveInt = 1
    """Passes over the training rows."""
    max_steps: PositiveInt | None = None
    """Stop after this many optimizer steps even if the epochs are not through."""
    val_check_interval: NonNegativeFloat | None = None
    """null or 0 = validate after each epoch; up to 1 = this part of an epoch; above 1 = this many steps."""
    val_at_end: bool = True
    """Validate after the last step."""
    keep_top_k: PositiveInt = 1
    """Checkpoints that are kept, the best ones by validation."""
    micro_batch_size: PositiveInt = 1
    """With max_seq_length, the memory promise of one forward pass per device: so many full-length rows fit."""
    activation_checkpointing: bool = False
    """Compute activations twice to save memory."""
    max_seq_length: PositiveInt = 2048
    """Tokens a prompt and its answer may have."""
    seed: int | None = None
    """Seed of everything random; null = 42."""
    parallelism: Degrees = Degrees()
    """How the work is spread over devices."""
    execution_profile: Text | None = None
    """Named place to run; null = this machine's default."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_lora(cls, given: Any) -> Any:
        return fill_in_lora(given, finetuning_type="all_weights")

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        check_decay(self.min_learning_rate, self.learning_rate)
        check_interval(self.val_check_interval)
        return self

    @property
    def makes_adapter(self) -> bool:
        """Whether the result is an adapter, not a model."""
        return self.finetuning_type == "lora" and not (self.lora and self.lora.merge)


class DpoTraining(RlTraining):
    """Learn from pairs of a better and a worse answer (Rafailov et al., 2023)."""

    type: Literal["dpo"] = "dpo"
    """The method."""
    batch_size: PositiveInt = 32
    """Pairs per optimizer step, over all data-parallel replicas."""
    ref_policy_kl_penalty: NonNegativeFloat = 0.05
    """beta: how strongly the model is held to where it started."""
    preference_average_log_probs: bool = False
    """Divide an answer's log-probability by its length before answers are compared."""
    sft_average_log_probs: bool = False
    """Divide it by the length in the supervised part of the loss."""
    preference_loss_weight: NonNegativeFloat = 1.0
    """Weight of the comparison."""
    sft_loss_weight: NonNegativeFloat = 0.0
    """Weight of learning the better answer by itself."""

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        replicas = self.parallelism.data_parallel_size
        check_batch("training.batch_size", self.batch_size, self.micro_batch_size, replicas)
        return self

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if not self.preference_loss_weight and not self.sft_loss_weight:
            raise ValueError(
                "training.preference_loss_weight and training.sft_loss_weight must not both be 0: "
                "nothing would be learned; preference_loss_weight is 1 unless you say otherwise"
            )
        return self


class PlainEnvironment(Spec):
    """Tasks whose answers are scored by fixed rules."""

    name: Literal["mcqa", "workbench", "multiverse_math_hard", "instruction_following"]
    """Which tasks."""


class JudgedMath(Spec):
    """Mathematics, where a judge may look at answers that are not literally equal."""

    name: Literal["library_judge_math"]
    """Which tasks."""
    should_use_judge: bool = False
    """Ask a model where the rules find no match."""
    judge_temperature: NonNegativeFloat = 0.0
    """Sampling temperature of the judge."""
    judge_top_p: Fraction = 1.0
    """Nucleus of the judge."""


class Coding(Spec):
    """Programs, which are run against unit tests."""

    name: Literal["comp_coding"]
    """Which tasks."""
    num_processes: PositiveInt = 8
    """Programs that run at the same time."""
    unit_test_timeout_secs: PositiveInt = 10
    """Seconds that a program may take."""


class GrpoTraining(RlTraining):
    """Learn from rewards, each answer compared with the others to its prompt (Shao et al., 2024)."""

    type: Literal["grpo"]
    """The method."""
    environment: Annotated[PlainEnvironment | JudgedMath | Coding, Field(discriminator="name")]
    """Where the rewards come from."""
    num_prompts_per_step: PositiveInt = 8
    """Prompts of an optimizer step."""
    num_generations_per_prompt: PositiveInt = 8
    """Answers that are compared with each other; 4 to 16 are usual."""
    generation_batch_size: PositiveInt = 32
    """Answers that are generated at the same time."""
    generation_temperature: PositiveFloat = 1.0
    """Sampling temperature."""
    generation_top_k: PositiveInt | None = None
    """Sample among this many tokens; null = all."""
    generation_top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample among the tokens that make up this much probability."""
    generation_pipeline_parallel_size: PositiveInt = 1
    """Devices that hold different layers while generating."""
    ref_policy_kl_penalty: NonNegativeFloat = 0.01
    """How strongly the model is held to where it started."""
    ratio_clip_min: Fraction = 0.2
    """How far below 1 the ratio of new to old probability counts."""
    ratio_clip_max: NonNegativeFloat = 0.2
    """How far above 1 it counts."""
    ratio_clip_c: Annotated[float, Field(gt=1)] | None = None
    """Bound of the ratio for bad answers (dual clipping); null = none."""
    normalize_rewards: bool = True
    """Divide the rewards of a prompt's answers by their spread."""
    use_rloo: bool = True
    """Compare an answer with the mean of the others, itself left out."""
    overlong_filtering: bool = False
    """Learn nothing from answers that were cut at the limit."""
    token_level_loss: bool = True
    """Average over tokens; false = over answers first."""
    use_importance_sampling_correction: bool = False
    """Correct for what generation and training compute differently."""
    use_on_policy_kl_approximation: bool = False
    """Weight the distance to the start by the ratio of probabilities."""
    logprob_chunk_size: PositiveInt | None = None
    """Tokens whose log-probabilities are computed at once; null = all."""

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        rows = self.num_prompts_per_step * self.num_generations_per_prompt
        field = "training.num_prompts_per_step * training.num_generations_per_prompt"
        check_batch(field, rows, self.micro_batch_size, self.parallelism.data_parallel_size)
        return self

    @model_validator(mode="after")
    def _answers_have_others(self) -> Self:
        if self.num_generations_per_prompt < 2:
            raise ValueError(
                f"training.num_generations_per_prompt ({self.num_generations_per_prompt}) must be at least 2: "
                "an answer is judged by the others to its prompt; 4 to 16 are usual"
            )
        return self

    @model_validator(mode="after")
    def _generation_fits_the_devices(self) -> Self:
        devices, stages = self.parallelism.devices, self.generation_pipeline_parallel_size
        if devices % stages:
            raise ValueError(
                f"Total GPUs ({devices}) must be divisible by training.generation_pipeline_parallel_size ({stages}): "
                f"use {stages} GPUs or a multiple, or 1 stage"
            )
        return self


class RlOutputRequest(Spec):
    """What the result is called."""

    name: Text | None = None
    """Name of the adapter or model, and of the fileset with its files; null makes one out of model and data set."""
    description: str | None = None
    """Free text stored on the result."""


class RlOutputResponse(Spec):
    """What the result is called, and what it is."""

    name: str
    """Name of the adapter or model."""
    type: Literal["adapter", "model"] = "model"
    """adapter for lora without merge, model otherwise."""
    fileset: str
    """Name of the fileset with the result's files."""
    description: str | None = None
    """Free text stored on the result."""


class RlSpec(Spec):
    """The sections of an rl job, as asked for and as resolved."""

    name: str | None = None
    """Ignored label, kept for clients that send it."""
    model: Text
    """Model entity to fine-tune: `name` or `workspace/name`."""
    dataset: Text
    """Fileset with training and validation rows: `name`, `workspace/name` or `fileset://workspace/name`."""
    training: Annotated[DpoTraining | GrpoTraining, Field(discriminator="type")]
    """The method with all its numbers."""
    integrations: Integrations | None = None
    """Experiment trackers that follow the run."""
    deployment_config: Text | DeploymentParams | None = None
    """Deployment to start when the job is done: parameters, or the name of a deployment config."""

    @model_validator(mode="before")
    @classmethod
    def _dpo_unless_said(cls, given: Any) -> Any:
        training = given.get("training") if isinstance(given, dict) else None
        return {**given, "training": {"type": "dpo", **training}} if isinstance(training, dict) else given

    @model_validator(mode="after")
    def _deployment_serves_the_result(self) -> Self:
        check_deployment(self.deployment_config, self.training.makes_adapter)
        return self


class RlJobInput(RlSpec):
    """An rl job as the user asks for it."""

    output: RlOutputRequest | None = None
    """What the result is called."""


class RlJobOutput(RlSpec):
    """An rl job as it runs: references resolved, defaults and output filled in."""

    output: RlOutputResponse
    """What the result is called, and what it is."""
