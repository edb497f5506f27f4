"""The jobs service over HTTP, where jobs of all kinds are followed. They are submitted in customization.py."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Query, Response
from fastapi.responses import StreamingResponse

from tunesmith.api import paths
from tunesmith.api.base import JsonObject, Page, PageRequest
from tunesmith.api.jobs import JOBS, Job, JobState, LogPage, LogRequest
from tunesmith.api.live import EventsRequest
from tunesmith.server import sse
from tunesmith.server.answers import answer
from tunesmith.server.paging import page_request
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("jobs")

Asked = Annotated[PageRequest, Depends(page_request(JOBS))]


@router.get(paths.JOBS, response_model=Page[Job])
async def list_jobs(workspace: str, asked: Asked, house: House) -> Response:
    """One page of a workspace's jobs."""
    return answer(await house.jobs.page(workspace, asked), exclude_none=True)


@router.get(paths.JOB)
async def get_job(workspace: str, name: str, house: House) -> Job:
    """One job as the jobs service shows it."""
    return await house.jobs.get(workspace, name)


@router.delete(paths.JOB, status_code=204)
async def delete_job(workspace: str, name: str, house: House) -> None:
    """Take a job out; one that runs is ended first. What it made stays."""
    await house.jobs.delete(workspace, name)


@router.post(paths.JOB_CANCEL)
async def cancel_job(workspace: str, name: str, house: House) -> Job:
    """Ask for the end of a job."""
    await house.jobs.cancel(workspace, name)
    return await house.jobs.get(workspace, name)


@router.post(paths.JOB_PAUSE)
async def pause_job(workspace: str, name: str, house: House) -> Job:
    """Ask for a checkpoint and a rest; the devices are free then."""
    await house.jobs.pause(workspace, name)
    return await house.jobs.get(workspace, name)


@router.post(paths.JOB_RESUME)
async def resume_job(workspace: str, name: str, house: House) -> Job:
    """Let a paused job go on from its checkpoint."""
    await house.jobs.resume(workspace, name)
    return await house.jobs.get(workspace, name)


@router.get(paths.JOB_STATUS)
async def job_status(workspace: str, name: str, house: House) -> JobState:
    """Status, steps, progress and metrics."""
    return await house.jobs.state(workspace, name)


@router.get(paths.JOB_METRICS)
async def job_metrics(workspace: str, name: str, house: House) -> dict[str, list[JsonObject]]:
    """Every point of every series; the status thins them to 500."""
    return await house.jobs.series(workspace, name)


@router.get(paths.JOB_EVENTS, response_class=Response, responses=sse.STREAM)
async def job_events(
    workspace: str,
    name: str,
    asked: Annotated[EventsRequest, Query()],
    house: House,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Server-sent events until the job has ended: `status`, `metrics` and `log` as they come, then `end`."""
    events = await house.live.follow(workspace, name, last_event_id or asked.cursor, asked.kinds)
    return sse.Answer(sse.lines(events))


@router.get(paths.JOB_LOGS)
async def job_logs(workspace: str, name: str, asked: Annotated[LogRequest, Query()], house: House) -> LogPage:
    """What the job's processes said."""
    return await house.jobs.logs(workspace, name, asked)
