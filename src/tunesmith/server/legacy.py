"""The older customization service over HTTP: jobs, and configs and targets, which are made from model entities."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Response
from fastapi.responses import JSONResponse

from tunesmith.api import paths
from tunesmith.api.base import PageRequest
from tunesmith.api.jobs import CreateJob
from tunesmith.api.legacy import (
    CONFIGS,
    LEGACY,
    LEGACY_JOBS,
    TARGETS,
    ContainerLogs,
    CreateLegacyJob,
    LegacyConfig,
    LegacyJob,
    LegacyJobStatus,
    LegacyPage,
    LegacyTarget,
)
from tunesmith.control.legacy_jobs import LegacyService
from tunesmith.refs import DEFAULT_WORKSPACE
from tunesmith.server.answers import answer
from tunesmith.server.doors import asked_for, in_the_words_of, translation
from tunesmith.server.paging import page_request
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House
from tunesmith.spec.doors import Translated, legacy

router = routes_of("older clients")


async def _service(house: House) -> LegacyService:
    return LegacyService(house.database, house.jobs, house.submission, house.secrets)


Legacy = Annotated[LegacyService, Depends(_service)]
Jobs = Annotated[PageRequest, Depends(page_request(LEGACY_JOBS))]
Configs = Annotated[PageRequest, Depends(page_request(CONFIGS))]
Targets = Annotated[PageRequest, Depends(page_request(TARGETS))]
WandbKey = Annotated[
    str | None, Header(alias="wandb-api-key", description="Kept as a secret of the job, and deleted with it.")
]


@router.post(paths.LEGACY_JOBS, status_code=201, response_model=LegacyJob, name="create_legacy_job")
async def create_job(asked: CreateLegacyJob, service: Legacy, wandb_api_key: WandbKey = None) -> Response:
    """Submit a job in the words of the older call."""
    meant = await service.resolve(translation(legacy, asked.model_dump(exclude_none=True)), wandb_api_key)
    job = asked_for(meant, _envelope(meant), LEGACY)
    with in_the_words_of(meant):
        return answer(await service.submit(meant.workspace or DEFAULT_WORKSPACE, job, wandb_api_key), 201)


@router.get(paths.LEGACY_JOBS, response_model=LegacyPage[LegacyJob], name="list_legacy_jobs")
async def list_jobs(asked: Jobs, service: Legacy) -> Response:
    """One page of the jobs of all namespaces, whatever they were submitted through."""
    return answer(await service.page(asked))


@router.get(paths.LEGACY_JOB, response_model=LegacyJob, name="get_legacy_job")
async def get_job(job_id: str, service: Legacy) -> Response:
    """One job, by its id or its name."""
    return answer(await service.get(job_id))


@router.get(paths.LEGACY_JOB_STATUS, response_model=LegacyJobStatus, name="legacy_job_status")
async def job_status(job_id: str, service: Legacy) -> Response:
    """Counters, losses and metrics."""
    return answer(await service.status(job_id))


@router.post(paths.LEGACY_JOB_CANCEL, response_model=LegacyJob, name="cancel_legacy_job")
async def cancel_job(job_id: str, service: Legacy) -> Response:
    """Ask for the end of a job."""
    return answer(await service.cancel(job_id))


@router.get(paths.LEGACY_JOB_LOGS, response_model=ContainerLogs, name="legacy_job_logs")
async def container_logs(job_id: str, service: Legacy) -> Response:
    """The last lines of what the job's processes said, by step."""
    return answer(await service.logs(job_id))


@router.get(paths.LEGACY_CONFIGS, response_model=LegacyPage[LegacyConfig], name="list_legacy_configs")
async def list_configs(asked: Configs, service: Legacy) -> Response:
    """One page of what can be trained, and how; `config` of a job takes each by `namespace/name`."""
    return answer(await service.configs(asked))


@router.get(paths.LEGACY_CONFIG, response_model=LegacyConfig, name="get_legacy_config")
async def get_config(namespace: str, name: str, service: Legacy) -> Response:
    """How a model can be trained."""
    return answer(await service.config(namespace, name))


@router.get(paths.LEGACY_TARGETS, response_model=LegacyPage[LegacyTarget], name="list_legacy_targets")
async def list_targets(asked: Targets, service: Legacy) -> Response:
    """One page of the models that can be trained."""
    return answer(await service.targets(asked))


@router.get(paths.LEGACY_TARGET, response_model=LegacyTarget, name="get_legacy_target")
async def get_target(namespace: str, name: str, service: Legacy) -> Response:
    """A model that can be trained."""
    return answer(await service.target(namespace, name))


@router.post(paths.LEGACY_CONFIGS, include_in_schema=False)
@router.post(paths.LEGACY_TARGETS, include_in_schema=False)
@router.patch(paths.LEGACY_CONFIG, include_in_schema=False)
@router.patch(paths.LEGACY_TARGET, include_in_schema=False)
@router.delete(paths.LEGACY_CONFIG, include_in_schema=False)
@router.delete(paths.LEGACY_TARGET, include_in_schema=False)
async def refuse_changes() -> Response:
    """Configs and targets are views of model entities."""
    reason = (
        "Configs and targets are made from model entities and cannot be changed here: create, change or delete the "
        "model (POST, PATCH, DELETE /apis/models/v2/workspaces/{workspace}/models), and say how to train in the job, "
        "whose `config` may be an object with training_options"
    )
    return JSONResponse({"detail": reason}, 405, {"allow": "GET"})


def _envelope(asked: Translated) -> CreateJob:
    """What the job has beside its spec."""
    return CreateJob(name=asked.name, description=asked.description, project=asked.project, ownership=asked.ownership)
