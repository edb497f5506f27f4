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
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

Text = String().with_variant(String(collation="C"), "postgresql")
"""Compared and sorted by code points in both databases, whatever locale a PostgreSQL server has."""
Json = JSON(none_as_null=True)
"""None is the column's NULL, never a JSON null beside it."""

metadata = MetaData()


def _named(table: str, *columns: Column[object]) -> Table:
    """A noun that lives in a workspace: what all of them have, its own columns, and the orders it is listed in."""
    found = Table(
        table,
        metadata,
        Column("id", Text, primary_key=True),
        Column("workspace", Text, ForeignKey("workspaces.name"), nullable=False),
        Column("name", Text, nullable=False),
        Column("project", Text),  # name of a project in the same workspace
        Column("description", Text),
        *columns,
        Column("created_at", DateTime, nullable=False),
        Column("updated_at", DateTime, nullable=False),
        UniqueConstraint("workspace", "name"),
    )
    for order in ("created_at", "updated_at"):
        Index(f"{table}_by_{order}", found.c.workspace, found.c[order], found.c.id)
    Index(f"{table}_by_project", found.c.workspace, found.c.project)
    return found


workspaces = Table(
    "workspaces",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text),
    Column("created_by", Text),
    Column("updated_by", Text),
    Column("created_at", DateTime, nullable=False),
    Column("updated_at", DateTime, nullable=False),
    Column("deleting_at", DateTime),  # not null = hidden, and on its way out with its contents
)

members = Table(
    "members",
    metadata,
    Column("workspace", Text, ForeignKey("workspaces.name", ondelete="CASCADE"), primary_key=True),
    Column("principal", Text, primary_key=True),
    Column("roles", Json, nullable=False),
    Column("granted_at", DateTime, nullable=False),
    Column("granted_by", Text),
)

projects = _named("projects")

secrets = _named(
    "secrets",
    Column("ciphertext", LargeBinary, nullable=False),  # authenticated, bound to workspace and name
    Column("key_id", Text, nullable=False),  # which key encrypted it
)

filesets = _named(
    "filesets",
    Column("purpose", Text, nullable=False),
    Column("storage", Json),  # null = our own blobs, else a remote storage with its commit or version
    Column("metadata", Json, nullable=False),
    Column("custom_fields", Json, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("fileset_id", Text, ForeignKey("filesets.id", ondelete="CASCADE"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("digest", Text, index=True),  # sha256 of the bytes, lower-case hex; null = remote and not fetched yet
    Column("size", BigInteger, nullable=False),
    Column("tag", Text),  # of a remote file: what the storage says of its content (sha256, git id, ETag)
    Column("created_at", DateTime, nullable=False),
)

models = _named(
    "models",
    Column("fileset", Text, index=True),  # as it was given
    Column("fileset_ref", Text, index=True),  # workspace/name
    Column("spec", Json),  # null until the checkpoint has been read
    Column("spec_status", Text, nullable=False),  # pending, completed, failed, given, none
    Column("spec_error", Text),
    Column("spec_round", Integer, nullable=False, default=0),  # counts what made it pending; guards late results
    Column("base_model", Text),
    Column("finetuning_type", Text),
    Column("trust_remote_code", Boolean, nullable=False),
    Column("api_endpoint", Json),
    Column("backend_format", Text),
    Column("prompt", Json),
    Column("ownership", Json),
    Column("model_providers", Json, nullable=False),  # given by the user, beside the deployments that serve it
    Column("custom_fields", Json, nullable=False),
)
Index("models_by_spec_status", models.c.spec_status, models.c.workspace)
Index("models_by_base_model", models.c.workspace, models.c.base_model)

model_layers = Table(  # apart from models: hundreds of lines each, and few readers ask for them
    "model_layers",
    metadata,
    Column("model_id", Text, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("layers", Json, nullable=False),
)

adapters = _named(
    "adapters",
    Column("model_id", Text, ForeignKey("models.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("model_ref", Text, nullable=False),  # workspace/name
    Column("fileset_ref", Text, nullable=False, index=True),  # workspace/name
    Column("finetuning_type", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("rank", Integer),
    Column("alpha", Float),
)

jobs = _named(
    "jobs",
    Column("source", Text, nullable=False),  # customization, or what whoever submitted a platform job calls itself
    Column("backend", Text, nullable=False),  # automodel, unsloth, rl; platform = a job of steps that others define
    Column("door", Text),  # shorthand, legacy: the route it came through, where that was not its backend's own
    Column("asked", Json),  # the spec as that route shows it
    Column("spec", Json, nullable=False),  # the canonical spec, as the backend route shows it
    Column("spec_digest", Text, nullable=False),  # of the spec as it was asked for
    Column("platform_spec", Json),  # the steps of a platform job
    Column("plan", Json),  # from here on: null for platform jobs
    Column("inputs", Json),  # what the run links: model, data, validation, teacher -> snapshot
    Column("model_ref", Text),  # the base: workspace/name
    Column("output_ref", Text),  # the adapter or model to be: workspace/name
    Column("result", Json),  # what it becomes: kind, finetuning_type, description, rank, alpha, deployment
    Column("secrets", Json),  # [variable, workspace/name] of each secret that its processes get
    Column("needs", Json),  # devices, nodes, named, profile
    Column("priority", Integer, nullable=False, default=0),
    Column("status", Text, nullable=False),
    Column("phase", Text, nullable=False),  # waiting, preparing, queued, training, paused, running, done
    Column("status_details", Json, nullable=False),
    Column("error_details", Json),
    Column("ownership", Json),
    Column("custom_fields", Json),
    Column("attempt_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("attempt_step", Integer, nullable=False, default=0),  # the checkpoint that the attempt began from
    Column("events_offset", BigInteger, nullable=False),
    Column("keeper", Json),  # identity of the keeper of the phase's process
    Column("ending", Json),  # the phase's last event, until its process is gone
    Column("request_id", Text),  # of the request that submitted it
    Column("idempotency_key", Text),
)
Index("jobs_by_phase", jobs.c.phase, jobs.c.priority, jobs.c.created_at)
Index("jobs_by_output", jobs.c.output_ref, jobs.c.phase)
Index("jobs_by_status", jobs.c.workspace, jobs.c.status, jobs.c.created_at, jobs.c.id)
Index("jobs_by_source", jobs.c.workspace, jobs.c.source, jobs.c.created_at, jobs.c.id)
Index("jobs_by_backend", jobs.c.workspace, jobs.c.backend, jobs.c.created_at, jobs.c.id)
Index("jobs_by_idempotency_key", jobs.c.workspace, jobs.c.idempotency_key, unique=True)

job_steps = Table(
    "job_steps",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("task_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("spec", Json),  # of a platform job's step: executor, config, environment, lifecycle
    Column("status", Text, nullable=False),
    Column("status_details", Json, nullable=False),
    Column("error_details", Json),
    Column("keeper", Json),  # of a platform job's step: identity of its keeper
    Column("created_at", DateTime, nullable=False),
    Column("updated_at", DateTime, nullable=False),
    UniqueConstraint("job_id", "name"),
)
Index("job_steps_by_status", job_steps.c.status, job_steps.c.created_at)

job_tasks = Table(  # those that a platform job's workers report; a customization job's step has one, made from the step
    "job_tasks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("step_id", Text, ForeignKey("job_steps.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("status_details", Json, nullable=False),
    Column("error_details", Json),
    Column("error_stack", Text),
    Column("created_at", DateTime, nullable=False),
    Column("updated_at", DateTime, nullable=False),
    UniqueConstraint("step_id", "name"),
)

job_results = Table(
    "job_results",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("artifact_url", Text, nullable=False),
    Column("artifact_storage_type", Text, nullable=False),
    Column("created_at", DateTime, nullable=False),
    Column("updated_at", DateTime, nullable=False),
    UniqueConstraint("job_id", "name"),
)

discards = Table(  # deleted jobs whose processes and directories are still there
    "discards",
    metadata,
    Column("id", Text, primary_key=True),  # the job's
    Column("phase", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("keeper", Json),
    Column("steps", Json, nullable=False),  # of a platform job: name of each step that may have a process
    Column("created_at", DateTime, nullable=False),
)

versions = Table(  # what an adapter or a model was before a job gave it new weights
    "versions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace", Text, ForeignKey("workspaces.name"), nullable=False),
    Column("kind", Text, nullable=False),  # adapter, model
    Column("name", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("snapshot", Json, nullable=False),
    Column("facts", Json, nullable=False),  # rank, alpha, description, and the job that made it
    Column("created_at", DateTime, nullable=False),
    UniqueConstraint("workspace", "kind", "name", "number"),
)

webhooks = _named(
    "webhooks",
    Column("url", Text, nullable=False),
    Column("secret_ref", Text, nullable=False),  # workspace/name of the secret that signs
    Column("statuses", Json, nullable=False),  # the statuses of jobs that are told; [] = all
)

deliveries = Table(  # what webhooks are still owed
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("webhook_id", Text, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("body", Json, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", DateTime, nullable=False, index=True),
    Column("created_at", DateTime, nullable=False),
)

metrics = Table(
    "metrics",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("series", Text, primary_key=True),  # train_loss, val_loss, lr, grad_norm, tokens_per_second
    Column("step", Integer, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("value", Float),  # null where it was not a finite number
)

leases = Table(
    "leases",
    metadata,
    Column("device", Text, primary_key=True),
    Column("holder_kind", Text, nullable=False),
    Column("holder_id", Text, nullable=False),
    Column("taken_at", DateTime, nullable=False),
)

deployment_configs = _named(
    "deployment_configs",
    Column("engine", Text, nullable=False),
    Column("model_spec", Json, nullable=False),
    Column("executor_config", Json, nullable=False),
    Column("model_entity_id", Text),
)

deployments = _named(
    "deployments",
    Column("config_id", Text, ForeignKey("deployment_configs.id"), nullable=False, index=True),
    Column("model_ref", Text, nullable=False, index=True),  # workspace/name
    Column("lora_enabled", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("status_message", Text, nullable=False),
    Column("status_history", Json, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("keeper", Json),
    Column("port", Integer),
)
