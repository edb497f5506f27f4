"""Fine-tuning jobs over HTTP, a set of routes for each dialect. Jobs of all kinds are in jobs.py."""

# No `from __future__ import annotations` here: FastAPI could not look up the shapes of a dialect in the annotations.
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Response

from tunesmith.api import paths
from tunesmith.api.base import Page, PageRequest
from tunesmith.api.jobs import (
    JOBS,
    AutomodelJob,
    CreateAutomodelJob,
    CreateRlJob,
    CreateUnslothJob,
    JobState,
    LogPage,
    LogRequest,
    RlJob,
    UnslothJob,
)
from tunesmith.control.submission import Asked
from tunesmith.server.answers import answer
from tunesmith.server.paging import page_request
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("customization")

Listed = Annotated[PageRequest, Depends(page_request(JOBS))]
Key = Annotated[
    str | None,
    Header(max_length=255, description="The same key again answers with the job that was made the first time."),
]


def routes(backend: str, create: Any, shown: Any) -> None:
    """Hang up the routes of one dialect: `create` is the shape of a new job, `shown` of one that there is."""

    def path(of: str) -> str:
        return of.replace("{backend}", backend)

    @router.post(path(paths.BACKEND_JOBS), status_code=201, response_model=shown, name=f"create_{backend}_job")
    async def create_job(workspace: str, asked: create, house: House, idempotency_key: Key = None) -> Response:
        """Submit a job in this dialect."""
        job = Asked(backend, asked, asked.spec, idempotency_key=idempotency_key)
        return answer(await house.submission.submit(workspace, job), 201)

    @router.get(path(paths.BACKEND_JOBS), response_model=Page[shown], name=f"list_{backend}_jobs")
    async def list_jobs(workspace: str, asked: Listed, house: House) -> Response:
        """One page of a workspace's jobs in this dialect."""
        return answer(await house.jobs.page_customization(workspace, asked, backend), exclude_none=True)

    @router.get(path(paths.BACKEND_JOB), response_model=shown, name=f"get_{backend}_job")
    async def get_job(workspace: str, name: str, house: House) -> Response:
        """One job with its resolved spec."""
        return answer(await house.jobs.get_customization(workspace, name, backend))

    @router.delete(path(paths.BACKEND_JOB), status_code=204, name=f"delete_{backend}_job")
    async def delete_job(workspace: str, name: str, house: House) -> None:
        """Take a job out; one that runs is ended first. What it made stays."""
        await house.jobs.get_customization(workspace, name, backend)
        await house.jobs.delete(workspace, name)

    @router.post(path(paths.BACKEND_JOB_CANCEL), response_model=shown, name=f"cancel_{backend}_job")
    async def cancel_job(workspace: str, name: str, house: House) -> Response:
        """Ask for the end of a job."""
        await house.jobs.get_customization(workspace, name, backend)
        await house.jobs.cancel(workspace, name)
        return answer(await house.jobs.get_customization(workspace, name, backend))

    @router.get(path(paths.BACKEND_JOB_STATUS), name=f"{backend}_job_status")
    async def job_status(workspace: str, name: str, house: House) -> JobState:
        """Status, steps, progress and metrics."""
        return await house.jobs.state(workspace, name)

    @router.get(path(paths.BACKEND_JOB_LOGS), name=f"{backend}_job_logs")
    async def job_logs(workspace: str, name: str, asked: Annotated[LogRequest, Query()], house: House) -> LogPage:
        """What the job's processes said."""
        return await house.jobs.logs(workspace, name, asked)


routes("automodel", CreateAutomodelJob, AutomodelJob)
routes("unsloth", CreateUnslothJob, UnslothJob)
routes("rl", CreateRlJob, RlJob)
