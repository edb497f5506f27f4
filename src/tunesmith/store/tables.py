"""The database's tables as they stand after the last migration."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData()


def _named(*columns: Column[object]) -> list[Column[object]]:
    """The columns of every noun that lives in a workspace, and its own."""
    return [
        Column("id", String, primary_key=True),
        Column("workspace", String, ForeignKey("workspaces.name"), nullable=False),
        Column("name", String, nullable=False),
        Column("description", String),
        *columns,
        Column("created_at", DateTime, nullable=False),
        Column("updated_at", DateTime, nullable=False),
    ]


workspaces = Table(
    "workspaces",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("description", String),
    Column("created_at", DateTime, nullable=False),
    Column("updated_at", DateTime, nullable=False),
)

filesets = Table(
    "filesets",
    metadata,
    *_named(
        Column("purpose", String, nullable=False),
        Column("metadata", JSON, nullable=False),
        Column("custom_fields", JSON, nullable=False),
    ),
    UniqueConstraint("workspace", "name"),
)

files = Table(
    "files",
    metadata,
    Column("fileset_id", String, ForeignKey("filesets.id", ondelete="CASCADE"), primary_key=True),
    Column("path", String, primary_key=True),
    Column("digest", String, nullable=False),  # sha256 of the bytes, lower-case hex
    Column("size", BigInteger, nullable=False),
    Column("created_at", DateTime, nullable=False),
)

models = Table(
    "models",
    metadata,
    *_named(
        Column("fileset", String, nullable=False),  # workspace/name
        Column("spec", JSON),  # null until the checkpoint has been read
        Column("base_model", String),
        Column("finetuning_type", String),
        Column("custom_fields", JSON, nullable=False),
    ),
    UniqueConstraint("workspace", "name"),
)

adapters = Table(
    "adapters",
    metadata,
    *_named(
        Column("model_id", String, ForeignKey("models.id", ondelete="CASCADE"), nullable=False, index=True),
        Column("fileset_id", String, ForeignKey("filesets.id"), nullable=False),
        Column("finetuning_type", String, nullable=False),
        Column("enabled", Boolean, nullable=False),
        Column("rank", Integer),
        Column("alpha", Integer),
    ),
    UniqueConstraint("workspace", "name"),
)

jobs = Table(
    "jobs",
    metadata,
    *_named(
        Column("backend", String, nullable=False),
        Column("spec", JSON, nullable=False),  # the canonical spec, as the backend route shows it
        Column("plan", JSON, nullable=False),
        Column("inputs", JSON, nullable=False),  # what the run links: model, data, validation -> fileset
        Column("model_ref", String, nullable=False),  # the base: workspace/name
        Column("output_ref", String, nullable=False),  # the adapter to be: workspace/name
        Column("status", String, nullable=False),
        Column("phase", String, nullable=False),  # waiting, preparing, queued, training, done
        Column("status_details", JSON, nullable=False),
        Column("error_details", JSON),
        Column("ownership", JSON),
        Column("custom_fields", JSON),
        Column("attempt_id", String, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("events_offset", BigInteger, nullable=False),
        Column("keeper", JSON),  # identity of the keeper of the phase's process
        Column("ending", JSON),  # the phase's last event, until its process is gone
    ),
    UniqueConstraint("workspace", "name"),
    Index("jobs_by_phase", "phase", "created_at"),
    Index("jobs_by_output", "output_ref", "phase"),
)

job_steps = Table(
    "job_steps",
    metadata,
    Column("id", String, primary_key=True),
    Column("job_id", String, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("task_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("position", Integer, nullable=False),
    Column("status", String, nullable=False),
    Column("status_details", JSON, nullable=False),
    Column("error_details", JSON),
    Column("created_at", DateTime, nullable=False),
    Column("updated_at", DateTime, nullable=False),
    UniqueConstraint("job_id", "name"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("job_id", String, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("series", String, primary_key=True),  # train_loss, val_loss
    Column("step", Integer, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("value", Float),  # null where it was not a finite number
)

leases = Table(
    "leases",
    metadata,
    Column("device", String, primary_key=True),
    Column("holder_kind", String, nullable=False),
    Column("holder_id", String, nullable=False),
    Column("taken_at", DateTime, nullable=False),
)

deployment_configs = Table(
    "deployment_configs",
    metadata,
    *_named(
        Column("engine", String, nullable=False),
        Column("model_spec", JSON, nullable=False),
        Column("executor_config", JSON, nullable=False),
        Column("model_entity_id", String),
    ),
    UniqueConstraint("workspace", "name"),
)

deployments = Table(
    "deployments",
    metadata,
    *_named(
        Column("config_id", String, ForeignKey("deployment_configs.id"), nullable=False, index=True),
        Column("model_ref", String, nullable=False),  # workspace/name
        Column("lora_enabled", Boolean, nullable=False),
        Column("status", String, nullable=False),
        Column("status_message", String, nullable=False),
        Column("status_history", JSON, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("keeper", JSON),
        Column("port", Integer),
    ),
    UniqueConstraint("workspace", "name"),
)
