"""Platform jobs over HTTP: submitted here, followed in jobs.py; steps, tasks and results of jobs of all kinds."""

from __future__ import annotations

from mimetypes import guess_type
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from tunesmith.api import paths
from tunesmith.api.base import Items, JsonObject, Name, Page, PageRequest
from tunesmith.api.jobs import Job
from tunesmith.api.platform_jobs import (
    STEPS_LISTED,
    CreatePlatformJob,
    CreateResult,
    ExecutionProfile,
    JobResult,
    JobStep,
    JobTask,
    StatusUpdate,
    StepInContext,
    TaskUpdate,
)
from tunesmith.server.answers import answer
from tunesmith.server.downloads import BYTES, download
from tunesmith.server.paging import page_request
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("jobs")

Listed = Annotated[PageRequest, Depends(page_request(STEPS_LISTED))]
Key = Annotated[
    str | None,
    Header(max_length=255, description="The same key again answers with the job that was made the first time."),
]
ARCHIVE = "application/x-tar"
RAW: dict[int | str, dict[str, Any]] = {200: {"content": {BYTES: {}, ARCHIVE: {}}, "description": "The bytes."}}


async def _learn_address(request: Request, house: House) -> None:
    """What jobs are told of where this server is, if its settings left the port open."""
    house.stepper.listens_at(*request.scope["server"])


@router.post(paths.JOBS, status_code=201, response_model=Job, dependencies=[Depends(_learn_address)])
async def create_job(workspace: str, asked: CreatePlatformJob, house: House, idempotency_key: Key = None) -> Response:
    """Submit a job of steps, each a command; only where the setting `allow_subprocess_jobs` is on."""
    return answer(await house.platform_jobs.create(workspace, asked, idempotency_key), 201)


@router.get(paths.EXECUTION_PROFILES)
async def list_execution_profiles(house: House) -> list[ExecutionProfile]:
    """The ways in which steps are run here; none while such jobs are not allowed."""
    return house.platform_jobs.profiles()


@router.patch(paths.JOB_STATUS_DETAILS)
async def update_status_details(workspace: str, name: str, details: JsonObject, house: House) -> None:
    """Merge into a job's status details, key by key."""
    await house.platform_jobs.merge_details(workspace, name, details)


@router.get(paths.JOB_STEPS, response_model=Page[StepInContext])
async def list_steps(workspace: str, name: str, asked: Listed, house: House) -> Response:
    """One page of the steps of a job that exist so far; `-` = of all jobs."""
    return answer(await house.platform_jobs.steps(workspace, name, asked), exclude_none=True)


@router.get(paths.JOB_STEP)
async def get_step(workspace: str, name: str, step: str, house: House) -> JobStep:
    """One step."""
    return await house.platform_jobs.step(workspace, name, step)


@router.patch(paths.JOB_STEP_STATUS)
async def update_step_status(workspace: str, name: str, step: str, asked: StatusUpdate, house: House) -> JobStep:
    """What a worker says of its step; the job follows."""
    return await house.platform_jobs.update_step(workspace, name, step, asked)


@router.get(paths.JOB_TASKS)
async def list_tasks(workspace: str, name: str, step: str, house: House) -> Items[JobTask]:
    """The tasks of a step."""
    return Items[JobTask](data=await house.platform_jobs.tasks(workspace, name, step))


@router.get(paths.JOB_TASK)
async def get_task(workspace: str, name: str, step: str, task: str, house: House) -> JobTask:
    """One task."""
    return await house.platform_jobs.task(workspace, name, step, task)


@router.put(paths.JOB_TASK)
async def put_task(workspace: str, name: str, step: str, task: str, asked: TaskUpdate, house: House) -> JobTask:
    """What a worker says of a task, which is made if there is none of that name."""
    return await house.platform_jobs.put_task(workspace, name, step, task, asked)


@router.get(paths.JOB_RESULTS)
async def list_results(
    workspace: str, name: str, house: House, sort: Annotated[str, Query()] = "created_at"
) -> Items[JobResult]:
    """What a job has made, as its workers have reported it."""
    return Items[JobResult](data=await house.results.all(workspace, name, sort))


@router.post(paths.JOB_RESULT, status_code=201)
async def create_result(workspace: str, name: str, result: Name, asked: CreateResult, house: House) -> JobResult:
    """Register something that a job has made."""
    return await house.results.create(workspace, name, result, asked)


@router.get(paths.JOB_RESULT)
async def get_result(workspace: str, name: str, result: str, house: House) -> JobResult:
    """One result."""
    return await house.results.get(workspace, name, result)


@router.get(paths.JOB_DOWNLOAD, response_class=Response, responses=RAW)
async def download_result(workspace: str, name: str, result: str, request: Request, house: House) -> Response:
    """The file, or the directory as tar.gz."""
    found = await house.results.artifact(workspace, name, result)
    if (file := found.file) is None:
        return StreamingResponse(house.results.archive(found), media_type=ARCHIVE, headers=_named(f"{result}.tar.gz"))
    headers = {"content-type": guess_type(file.path)[0] or BYTES, **_named(result)}
    return download(request, house.filesets.opened(file, found.snapshot), house.filesets.stream, headers)


def _named(name: str) -> dict[str, str]:
    """For the reader's disk; a result's name needs no quoting."""
    return {"content-disposition": f'attachment; filename="{name}"'}
