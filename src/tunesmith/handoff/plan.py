"""The Plan: everything about a run that is decided before its tokens are counted.

Written by control as `plan.json` into the run's directory, read by `tunesmith.data` and `tunesmith.train`.
All paths are relative to that directory. Nothing here needs a lookup or a second decision.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunesmith.handoff.base import Compute, Handed, HandedFile, Stored

PLAN_FILE = "plan.json"


class Epochs(Handed):
    """Stop after this many passes over the training rows."""

    kind: Literal["epochs"] = "epochs"
    epochs: int


class FirstOf(Handed):
    """Stop after this many passes or this many steps, whichever comes first."""

    kind: Literal["first_of"] = "first_of"
    epochs: int
    steps: int


Stop = Annotated[Epochs | FirstOf, Field(discriminator="kind")]


class EachEpoch(Handed):
    """At the end of each epoch."""

    kind: Literal["each_epoch"] = "each_epoch"


class FractionOfEpoch(Handed):
    """Each time this part of an epoch has passed (0 < fraction <= 1)."""

    kind: Literal["fraction"] = "fraction"
    fraction: float


class EverySteps(Handed):
    """Each time this many optimizer steps have passed."""

    kind: Literal["steps"] = "steps"
    steps: int


class AtTheEnd(Handed):
    """Once, after the last step."""

    kind: Literal["at_the_end"] = "at_the_end"


Cadence = Annotated[EachEpoch | FractionOfEpoch | EverySteps | AtTheEnd, Field(discriminator="kind")]
"""When something is done, such as a validation or a checkpoint."""


Attention = Literal["sdpa", "eager"]
"""sdpa = torch's kernel where it can and wins; eager = explicit products throughout."""


class ModelPart(Handed):
    """The base model, in `inputs/model`."""

    name: str
    """`workspace/name` of the model entity, for the artifact's `base_model_name_or_path`."""
    attention: Attention
    """Which attention function computes."""
    compute: Literal["auto"] | Compute
    """Type of the matrix products. auto = bf16 where the processor has bf16 dot products, else fp32; the run's
    `started` event says which it was. Frozen weights lie in the same type, trained ones have float32 masters."""
    recompute: Literal["no", "layers", "offloaded"] = "no"
    """Activations of a layer: kept; computed again in the backward pass (Chen et al., 2016); or so, with what is kept
    between layers in main memory."""


class DataPart(Handed):
    """The rows, in `inputs/data` and, where a validation fileset is given, in `inputs/validation`."""

    chat_template: str
    """Jinja template that renders `messages` rows; "" when neither the fileset nor the checkpoint has one."""
    sequence_limit: int
    """Tokens a row may have; longer ones are cut (prompts on the left, everything else on the right)."""
    validation: Literal["files", "split"]
    """files = `inputs/validation`; split = the data set's own validation files, else `split_fraction` of its rows."""
    split_fraction: float
    """Part of the training rows that becomes validation rows where there are no validation files; at least one row
    when there are ten."""
    seed: int
    """Draws the split."""
    text_field: str = "text"
    """The key of a row whose text is trained on whole."""
    prompt_template: str = ""
    """Two placeholders that name the keys of prompt and completion; "" = rows say themselves what they are."""
    conversations: bool = True
    """Whether rows with messages are rendered; else they are refused."""
    columns: bool = True
    """Whether rows of two texts and no known key are taken as prompt and completion."""
    packing: bool = False
    """Whether a step holds as many full sequences as its rows fill on average, instead of a number of rows."""
    pack_window: int = 1000
    """Rows that are looked at together when they are put into sequences of `sequence_limit` tokens."""


Start = Literal["uniform", "gaussian", "both_random", "pissa", "olora"]
OF_THE_BASE = ("pissa", "olora")
"""Starts that take a part out of W and begin as it."""


class LoraPart(Handed):
    """Low-rank adapters (Hu et al., 2021): y = W x + scale B A x, with scale = alpha / rank."""

    rank: int
    alpha: int
    dropout: float
    """Probability that an input element of an adapter is zeroed while training."""
    modules: tuple[str, ...]
    """Full names of the linear modules that are adapted, in the checkpoint's order."""
    seed: int | None = None
    """Draws the start values; None = the schedule's seed."""
    rank_stabilised: bool = False
    """scale = alpha / sqrt(rank) (Kalajdzievski, 2023)."""
    start: Start = "uniform"
    """uniform = A uniform and B zero; gaussian = A normal and B zero; both_random = neither is zero; pissa = the
    principal directions of W (Meng et al., 2024); olora = its QR factors (Buyukakyuz, 2024)."""
    decomposed: bool = False
    """Whether the length of each weight's rows is trained apart from their direction (DoRA; Liu et al., 2024)."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained too: none, all of the model's, those of the adapted modules."""
    whole_modules: tuple[str, ...] = ()
    """Full names of modules that are trained whole and saved beside the adapter."""

    @property
    def saved_rank_and_alpha(self) -> tuple[int, float]:
        """Of the adapter's files.

        One that began as a part of the base is saved as the difference to its start, so that it fits the base as it is:
        of twice the rank, with the alpha that leaves its scale what it was.
        """
        if self.start not in OF_THE_BASE:
            return self.rank, self.alpha
        return 2 * self.rank, self.alpha * (2**0.5 if self.rank_stabilised else 2)


class OptimizerPart(Handed):
    """One optimizer and its learning rate over the steps."""

    name: Literal["adam", "adamw", "sgd"]
    """adam = weight decay added to the gradient (coupled L2), adamw = decoupled (Loshchilov & Hutter, 2019), sgd = no
    running means, coupled L2; it has no use for the betas and eps."""
    learning_rate: float
    """Peak, reached after the warm-up."""
    min_learning_rate: float
    """Where the decay ends."""
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    warmup_steps: int
    """Steps over which the learning rate rises linearly from 0."""
    warmup_ratio: float = 0.0
    """The same as a part of all steps, rounded up; counts where `warmup_steps` is 0."""
    decay: Literal["cosine", "linear", "constant"]
    cycles: int = 1
    """How often a cosine falls from the peak to the end: after each fall but the last it starts at the peak again."""
    max_grad_norm: float
    """The gradient's global L2 norm is scaled down to this."""

    @property
    def means(self) -> int:
        """How many running means it keeps of each trained weight, in float32."""
        return 0 if self.name == "sgd" else 2


class ObjectivePart(Handed):
    """What is minimised, beyond the plain loss of the method; the validation loss stays plain."""

    label_smoothing: float = 0.0
    """Part of the target's probability that is spread evenly over the vocabulary (Szegedy et al., 2016)."""
    embedding_noise: float = 0.0
    """NEFTune's alpha (Jain et al., 2023): embeddings of a row get noise in +-alpha / sqrt(tokens x hidden)."""


class ResultPart(Handed):
    """What the artifact is."""

    form: Literal["adapter", "model"] = "adapter"
    """adapter = the adapter by itself; model = all weights, an adapter added to those of the base."""
    dtype: Literal["base"] | Stored = "base"
    """Type that a model's weights are stored in; base = as the base model's are."""
    step: Literal["best", "last"] = "best"
    """Which weights: those of the lowest validation loss (the last ones where none was measured), or the last ones."""


class SchedulePart(Handed):
    """How long, how much a step holds, and when to look."""

    stop: Stop
    validate_at: Cadence
    """A last validation always runs at the end."""
    rows_per_step: int
    """Rows of one optimizer step (the global batch)."""
    tokens_per_pass: int
    """Memory promise of one forward pass, in padded tokens: rows of a step are cut into passes that fit."""
    seed: int
    """Draws packs and the order of rows, the adapter's start values, dropout and noise."""
    save_at: EachEpoch | EverySteps | None = None
    """Checkpoints that were asked for, beside those that are due by time; None = none."""
    log_every: int = 1
    """Steps between two `progress` events: their mean loss, and the other numbers of the last one."""


class WandbPart(Handed):
    """A run of Weights & Biases; the API key is WANDB_API_KEY in the environment. "" leaves a choice to the library."""

    name: str
    """Shown on the run."""
    project: str = ""
    entity: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""
    base_url: str = ""
    """Address of a self-hosted server."""


class MlflowPart(Handed):
    """A run of MLflow; credentials are in the environment. "" leaves a choice to the library."""

    name: str
    """Shown on the run."""
    experiment_name: str = ""
    tags: dict[str, str] = {}
    description: str = ""
    tracking_uri: str = ""
    """Address of the tracking server."""


class TrackersPart(Handed):
    """Who else is told the metrics; None = nobody asked for it. They change no number."""

    wandb: WandbPart | None = None
    mlflow: MlflowPart | None = None


class Plan(HandedFile):
    """One run, decided."""

    run: str
    """Id of the job, for log lines."""
    method: Literal["sft"]
    model: ModelPart
    data: DataPart
    adapter: LoraPart | None
    """None = all weights are trained."""
    optimizer: OptimizerPart
    schedule: SchedulePart
    objective: ObjectivePart = ObjectivePart()
    result: ResultPart = ResultPart()
    trackers: TrackersPart = TrackersPart()

    @model_validator(mode="after")
    def _all_weights_make_a_model(self) -> Self:
        if self.adapter is None and self.result.form == "adapter":
            raise ValueError("result.form (adapter): all weights are trained, so the result is a model")
        return self
