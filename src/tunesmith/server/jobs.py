"""Jobs over HTTP: the customization API, where they are submitted, and the jobs service, where all are followed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from tunesmith.api import paths
from tunesmith.api.base import Page, PageRequest
from tunesmith.api.jobs import (
    JOBS,
    AutomodelJob,
    CreateAutomodelJob,
    Job,
    JobState,
    LogPage,
    LogRequest,
)
from tunesmith.server.paging import page_request
from tunesmith.server.services import House

router = APIRouter(tags=["jobs"])

Asked = Annotated[PageRequest, Depends(page_request(JOBS))]


@router.post(paths.AUTOMODEL_JOBS, status_code=201)
async def create_automodel_job(workspace: str, asked: CreateAutomodelJob, house: House) -> AutomodelJob:
    """Submit a job in the automodel dialect."""
    return await house.jobs.submit(workspace, asked)


@router.get(paths.AUTOMODEL_JOBS, response_model_exclude_none=True)
async def list_automodel_jobs(workspace: str, asked: Asked, house: House) -> Page[AutomodelJob]:
    """One page of a workspace's automodel jobs."""
    return await house.jobs.page_automodel(workspace, asked)


@router.get(paths.AUTOMODEL_JOB)
async def get_automodel_job(workspace: str, name: str, house: House) -> AutomodelJob:
    """One job with its resolved spec."""
    return await house.jobs.get_automodel(workspace, name)


@router.post(paths.AUTOMODEL_JOB_CANCEL)
async def cancel_automodel_job(workspace: str, name: str, house: House) -> AutomodelJob:
    """Ask for the end of a job."""
    await house.jobs.cancel(workspace, name)
    return await house.jobs.get_automodel(workspace, name)


@router.get(paths.JOBS, response_model_exclude_none=True)
async def list_jobs(workspace: str, asked: Asked, house: House) -> Page[Job]:
    """One page of a workspace's jobs."""
    return await house.jobs.page(workspace, asked)


@router.get(paths.JOB)
async def get_job(workspace: str, name: str, house: House) -> Job:
    """One job as the jobs service shows it."""
    return await house.jobs.get(workspace, name)


@router.post(paths.JOB_CANCEL)
async def cancel_job(workspace: str, name: str, house: House) -> Job:
    """Ask for the end of a job."""
    await house.jobs.cancel(workspace, name)
    return await house.jobs.get(workspace, name)


@router.get(paths.AUTOMODEL_JOB_STATUS)
@router.get(paths.JOB_STATUS)
async def job_status(workspace: str, name: str, house: House) -> JobState:
    """Status, steps, progress and metrics."""
    return await house.jobs.state(workspace, name)


@router.get(paths.AUTOMODEL_JOB_LOGS)
@router.get(paths.JOB_LOGS)
async def job_logs(workspace: str, name: str, asked: Annotated[LogRequest, Query()], house: House) -> LogPage:
    """What the job's processes said."""
    return await house.jobs.logs(workspace, name, asked)
