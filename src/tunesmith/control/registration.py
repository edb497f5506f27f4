"""A finished run becomes a fileset with an adapter or a model, and perhaps a deployment: all in one transaction."""

from __future__ import annotations

import logging
from typing import Any

from tunesmith.api.deployments import CreateDeployment, CreateDeploymentConfig, DeploymentStatus
from tunesmith.api.filesets import CreateFileset, FilesetMetadata, ModelMetadata, ToolCalling, UpdateFileset
from tunesmith.api.jobs import REGISTRATION, TRAINING, UPLOAD, JobStatus
from tunesmith.api.models import CreateModel
from tunesmith.control import deployments
from tunesmith.errors import Conflict, TunesmithError
from tunesmith.handoff.crash import crash_at
from tunesmith.handoff.events import Finished
from tunesmith.refs import DEPLOYMENT_NAME_LIMIT, Ref
from tunesmith.store.database import Tx
from tunesmith.store.filesets import MARK
from tunesmith.store.ids import hexadecimal, slug
from tunesmith.store.jobs import Phase, StoredJob

log = logging.getLogger(__name__)

LIVE = (DeploymentStatus.CREATED, DeploymentStatus.PENDING, DeploymentStatus.READY)
DESCRIPTION_LIMIT = 255


def register(tx: Tx, job_id: str, finished: Finished) -> None:
    """One transaction: the result, the last two steps, the devices given back, the job completed.

    Conflict when the name was taken meanwhile by what no job made; then nothing has changed.
    """
    job = tx.jobs.by_id(job_id)
    if job.status == JobStatus.CANCELLING:
        end(tx, job_id, JobStatus.CANCELLED)
        return
    version = _files(tx, job, finished)
    make = _adapter if job.result.kind == "adapter" else _model
    make(tx, job, made_before=version is not None)
    tx.jobs.steps.move(job_id, TRAINING, JobStatus.COMPLETED)
    for step in (UPLOAD, REGISTRATION):
        tx.jobs.steps.add(job_id, step, JobStatus.COMPLETED)
    tx.jobs.merge_details(job_id, UPLOAD, {"uploaded_files": len(finished.files), "fileset": str(job.output)})
    replaced = {"replaced_version": version} if version else {}
    tx.jobs.merge_details(job_id, REGISTRATION, {job.result.kind: str(job.output), **replaced})
    if job.result.deployment is not None:
        tx.jobs.merge_details(job_id, REGISTRATION, deploy(tx, job))
    crash_at("register-before-commit")
    end(tx, job_id, JobStatus.COMPLETED)


def end(tx: Tx, job_id: str, status: JobStatus, error: dict[str, Any] | None = None) -> None:
    """One transaction: the job's one end, its open steps ended with it, its devices given back."""
    phases = (Phase.PREPARING, Phase.TRAINING)
    tx.jobs.move(job_id, Phase.DONE, status, allowed_from=phases, keeper=None, ending=None, error_details=error)
    tx.jobs.steps.move_open(job_id, status, error)
    tx.jobs.merge_details(job_id, None, {"phase": status})
    tx.leases.release("job", job_id)


def deploy(tx: Tx, job: StoredJob) -> dict[str, str]:
    """What is deployed because the job asked for it, or why nothing is, as status details. The result stays."""
    try:
        with tx.connection.begin_nested():
            return _deploy(tx, job)
    except TunesmithError as error:
        return {"deployment_error": error.message}


def _deploy(tx: Tx, job: StoredJob) -> dict[str, str]:
    served = job.model if job.result.kind == "adapter" else job.output
    if job.result.kind == "adapter":
        for each in tx.deployments.all():
            if each.model == served and each.lora_enabled and each.status in LIVE:
                return {"deployment": str(each.ref), "deployment_reused": "it serves the base, and now the adapter too"}
    wanted = job.result.deployment
    workspace = job.ref.workspace
    if isinstance(wanted, str):
        config = str(Ref.parse(wanted, workspace, "spec.deployment_config"))
    else:
        asked = CreateDeploymentConfig.model_validate(
            {
                "name": _name("sft-cfg", served),
                "engine": "nim",
                "model_spec": {"lora_enabled": wanted["lora_enabled"]},
                "executor_config": {"gpu": wanted["gpu"]},
                "model_entity_id": str(served),
                "description": f"Made by job {job.ref}",
            }
        )
        config = deployments.create_config(tx, workspace, asked).name
    name = _name("sft-deploy", served)
    deployments.deploy(tx, workspace, CreateDeployment(name=name, config=config))
    return {"deployment": f"{workspace}/{name}"}


def _name(prefix: str, model: Ref) -> str:
    """A lawful name that nothing has: `sft-deploy-llama-1b-4f2a91`."""
    tail = hexadecimal(6)
    room = DEPLOYMENT_NAME_LIMIT - len(prefix) - len(tail) - 2
    return f"{prefix}-{slug(model.name)[:room].strip('-').lower()}-{tail}"


def _files(tx: Tx, job: StoredJob, finished: Finished) -> int | None:
    """The result's fileset holds the artifact and nothing else; the number under which what it held before is kept."""
    output = job.output
    description = _description(job)
    held = tx.filesets.find_row(output.workspace, output.name)
    version = None
    if held is None:
        asked = CreateFileset(name=output.name, description=description, purpose="model")
        tx.filesets.create(output.workspace, asked)
    else:
        if not (held["custom_fields"] or {}).get(MARK):
            raise Conflict(f"Fileset '{output}' already exists, and no job made it")
        snapshot = tx.filesets.snapshot(output)
        version = tx.versions.keep(job.result.kind, output, snapshot, _facts(tx, job))
        for file in snapshot.files:
            tx.filesets.remove(output.workspace, output.name, file.path)
    for made in finished.files:
        tx.filesets.put(output.workspace, output.name, made.path, made.digest, made.size, by_service=True)
    tx.filesets.mark(output, job.backend)
    if job.result.kind == "model":
        said = FilesetMetadata(model=ModelMetadata(tool_calling=_tool_calling(tx, job.model)))
        tx.filesets.update(output.workspace, output.name, UpdateFileset(metadata=said))
    return version


def _tool_calling(tx: Tx, base: Ref) -> ToolCalling | None:
    """How a model tuned from `base` calls tools: as the metadata of the base's fileset say. The chat template that its
    rows were rendered with is among its files, whatever those metadata say by now."""
    row = tx.models.row(base.workspace, base.name)
    fileset = Ref.unchecked(row["fileset_ref"])
    about = tx.filesets.get(fileset.workspace, fileset.name).metadata.model
    return about.tool_calling.model_copy(update={"chat_template": None}) if about and about.tool_calling else None


def _facts(tx: Tx, job: StoredJob) -> dict[str, Any]:
    """What is said of the version that is about to be replaced."""
    repository = tx.adapters if job.result.kind == "adapter" else tx.models
    row = repository.find_row(job.output.workspace, job.output.name)
    if row is None:
        return {}
    return {key: row[key] for key in ("rank", "alpha", "description", "finetuning_type") if key in row}


def _adapter(tx: Tx, job: StoredJob, *, made_before: bool) -> None:
    base = tx.models.row(job.model.workspace, job.model.name)
    held = tx.adapters.find_row(job.output.workspace, job.output.name)
    if held is not None and made_before and held["model_id"] == base["id"]:
        tx.adapters.change(
            held, description=_description(job), rank=job.result.rank, alpha=job.result.alpha, enabled=True
        )
        return
    tx.adapters.create(
        job.output,
        model_id=base["id"],
        model=job.model,
        fileset=job.output,
        description=_description(job),
        rank=job.result.rank,
        alpha=job.result.alpha,
    )


def _model(tx: Tx, job: StoredJob, *, made_before: bool) -> None:
    held = tx.models.find_row(job.output.workspace, job.output.name)
    if held is not None and made_before:
        tx.models.change(held, description=_description(job), finetuning_type=job.result.finetuning_type)
        tx.models.fileset_changed(job.output)
        return
    asked = CreateModel(
        name=job.output.name,
        description=_description(job),
        fileset=str(job.output),
        base_model=str(job.model),
        finetuning_type=job.result.finetuning_type,
    )
    tx.models.create(job.output.workspace, asked, job.output)


def _description(job: StoredJob) -> str:
    return (job.result.description or f"Customized model from job {job.ref}")[:DESCRIPTION_LIMIT]
