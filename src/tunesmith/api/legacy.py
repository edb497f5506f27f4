"""The older customization service on the wire, as its last client (nemo-microservices 1.5) sends and reads it.

Its paths have no workspace: things live in a `namespace`, which is our workspace, and jobs are addressed by id or name.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, StringConstraints

from tunesmith.api.base import JsonObject, Listing, Pagination, ProjectName, Request, Resource, Timestamp

LEGACY = "legacy"
"""What a job's row calls the door that it came through."""
LEGACY_JOBS = Listing(page_size=10, sortable=("created_at",))
CONFIGS = Listing(page_size=10, sortable=("created_at", "updated_at", "name", "target_enabled"))
TARGETS = Listing(page_size=10, sortable=("created_at", "updated_at", "name"))

METRIC_KEYS = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")

Reference = Annotated[str, StringConstraints(min_length=1)]
LegacyStatus = Literal[
    "created", "pending", "running", "cancelled", "cancelling", "failed", "completed", "ready", "unknown"
]
T = TypeVar("T")


class CreateLegacyJob(Request):
    """A new job in the words of the older call."""

    config: Reference | JsonObject
    """The base model, as `namespace/name` or a config object. A version behind `@` is cut; a namespace that has no such
    model is taken for `default`."""
    dataset: Reference | JsonObject
    """`namespace/name` of a fileset, or `{name, namespace, files_url}`."""
    hyperparameters: JsonObject
    """`training_type` (sft, distillation, dpo, grpo), `finetuning_type`, `epochs`, `batch_size`, `lora` and so on."""
    dataset_parameters: JsonObject | None = None
    """Of embedding models; refused until they can be trained."""
    integrations: list[JsonObject] | JsonObject | None = None
    """`[{type: wandb, wandb: {project, entity, notes, tags}}]`."""
    output_model: Reference | None = None
    """What the result is called; null makes a name."""
    name: str | None = None
    """2 to 51 characters; null makes one."""
    namespace: Reference | None = None
    """The workspace; null = default."""
    description: str | None = None
    project: ProjectName | None = None
    custom_fields: JsonObject | None = None
    ownership: JsonObject | None = None


class LegacyPage(Resource, Generic[T]):
    """One page of a list; beyond the last one `data` is empty."""

    data: list[T]
    object: Literal["list"] = "list"
    pagination: Pagination
    sort: str | None = None
    filter: JsonObject | None = None
    """As it was asked: `{"namespace": "default"}`."""
    search: JsonObject | None = None


class MetricPoint(Resource):
    """A metric at a step."""

    step: int
    value: float | None
    """null where it was not a finite number."""
    timestamp: str | None = None
    """When it was reported, UTC; null where the run's files are gone."""


class MetricSeries(Resource):
    """What the trainer reported; it counts no accuracies."""

    train_loss: list[MetricPoint] = []
    val_loss: list[MetricPoint] = []
    train_accuracy: list[MetricPoint] = []
    val_accuracy: list[MetricPoint] = []


class LegacyMetrics(Resource):
    """The series, and what they are called."""

    keys: list[str] = list(METRIC_KEYS)
    metrics: MetricSeries = MetricSeries()


class StatusLog(Resource):
    """A change of a job's status."""

    updated_at: Timestamp
    message: str
    detail: str | None = None


class LegacyJobStatus(Resource):
    """How a job is doing."""

    created_at: Timestamp
    updated_at: Timestamp
    status: LegacyStatus
    percentage_done: float
    """Epochs completed, of all epochs; below 100 at the end where max_steps came first."""
    epochs_completed: int
    steps_completed: int
    steps_per_epoch: int | None
    """null until the rows are counted."""
    best_epoch: int | None
    """The one with the lowest validation loss."""
    elapsed_time: float
    """Seconds since training began, up to now or to the end."""
    train_loss: float | None
    val_loss: float | None
    metrics: LegacyMetrics
    status_logs: list[StatusLog]


class JobWarning(Resource):
    """Something to know about a job."""

    message: str
    explanation: str | None = None


class TrainingOption(Resource):
    """One way to train a model."""

    training_type: str
    finetuning_type: str
    num_gpus: int = 1
    num_nodes: int = 1
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    expert_model_parallel_size: int | None = None
    use_sequence_parallel: bool = False
    micro_batch_size: int = 1


class ConfigSnapshot(Resource):
    """The base model and how it is trained, as one job has it."""

    base_model: str
    max_seq_length: int
    precision: str | None
    """null until the job has seen where it runs."""
    training_option: TrainingOption
    prompt_template: str | None = None
    dataset_schema: JsonObject | None = None


class LegacyJob(Resource):
    """A job, whatever it was submitted through."""

    id: str
    name: str
    namespace: str
    description: str | None = None
    project: str | None = None
    created_at: Timestamp
    updated_at: Timestamp
    custom_fields: JsonObject = {}
    ownership: JsonObject | None = None
    config: str | JsonObject
    dataset: str | JsonObject
    hyperparameters: JsonObject
    """With what was filled in."""
    dataset_parameters: JsonObject | None = None
    integrations: list[JsonObject] | None = None
    output_model: str
    """`namespace/name` of the adapter or model that it makes."""
    status: LegacyStatus
    status_details: LegacyJobStatus
    config_snapshot: ConfigSnapshot
    warnings: list[JobWarning] = []


class ContainerEvent(Resource):
    """A change of a step's status, as the older service tells of pods."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    count: str = "1"
    first_seen: int
    """Seconds since 1970."""
    last_seen: int


class ContainerEntry(Resource):
    """What there is of one step."""

    events: list[ContainerEvent]
    logs: dict[str, Any]
    """Text by the name of the step."""
    status: JsonObject
    object: str


class JobLogError(Resource):
    """Why a job failed."""

    message: str
    explanation: str | None = None
    exception_type: str | None = None
    file: str | None = None
    line: int | None = None
    stack_trace: str | None = None
    timestamp: str | None = None


class ContainerLogs(Resource):
    """What the job's processes said, by step."""

    entries: dict[str, ContainerEntry]
    error: JobLogError | None = None


class LegacyConfig(Resource):
    """A model entity and the ways in which it can be trained."""

    name: str
    namespace: str
    description: str | None = None
    project: str | None = None
    created_at: Timestamp
    updated_at: Timestamp
    custom_fields: JsonObject = {}
    ownership: JsonObject | None = None
    max_seq_length: Annotated[int, Field(ge=0)]
    training_options: list[TrainingOption]
    training_precision: str
    dataset_schemas: list[JsonObject] | None = None
    target: str
    """`namespace/name` of the target."""


class LegacyTarget(Resource):
    """A model entity as something to be trained."""

    id: str
    name: str
    namespace: str
    description: str | None = None
    project: str | None = None
    created_at: Timestamp
    updated_at: Timestamp
    custom_fields: JsonObject = {}
    ownership: JsonObject | None = None
    base_model: str
    num_parameters: int
    """0 until the checkpoint has been read."""
    precision: str
    """Of the stored weights."""
    model_path: str
    """The fileset with the checkpoint."""
    model_uri: str | None = None
    hf_endpoint: str | None = None
    enabled: bool = True
    model_type: Literal["hf"] = "hf"
    status: Literal["created", "pending", "failed", "ready"]
    """ready once the checkpoint has been read."""
