"""Fine-tuning jobs: `client.customization.automodel.jobs` and so on by dialect, `client.customization.jobs` for all."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from tunesmith.api import paths
from tunesmith.api.base import JsonObject, Page
from tunesmith.api.doors import CreateShorthandJob
from tunesmith.api.jobs import (
    AutomodelJob,
    CreateAutomodelJob,
    CreateJob,
    CreateRlJob,
    CreateUnslothJob,
    CustomizationJob,
    JobState,
    LogPage,
    RlJob,
    UnslothJob,
)
from tunesmith.client import retry, wire
from tunesmith.client.aio.pages import AsyncPages
from tunesmith.client.aio.resource import AsyncResource
from tunesmith.client.aio.transport import AsyncTransport
from tunesmith.spec.base import Spec

J = TypeVar("J", bound=CustomizationJob)


class Routes(NamedTuple):
    """The paths of one dialect's jobs, or of the shorthand's."""

    jobs: str
    job: str
    status: str
    cancel: str
    logs: str
    backend: str | None = None
    """None = the shorthand."""

    @classmethod
    def of(cls, backend: str) -> Routes:
        """Of a dialect."""
        dialects = (
            *(paths.BACKEND_JOBS, paths.BACKEND_JOB),
            *(paths.BACKEND_JOB_STATUS, paths.BACKEND_JOB_CANCEL, paths.BACKEND_JOB_LOGS),
        )
        return cls._make([*(path.replace("{backend}", backend) for path in dialects), backend])


SHORTHAND = Routes(
    *(paths.SHORTHAND_JOBS, paths.SHORTHAND_JOB),
    *(paths.SHORTHAND_JOB_STATUS, paths.SHORTHAND_JOB_CANCEL, paths.SHORTHAND_JOB_LOGS),
)


class AsyncCustomizationJobs(AsyncResource, Generic[J]):
    """`client.customization.automodel.jobs`, and the same for the other dialects.

    `client.customization.jobs` takes specs in the shorthand, which is one for all dialects, and lists jobs of them all.
    """

    def __init__(
        self, transport: AsyncTransport, workspace: str, routes: Routes, new: type[CreateJob], shown: type[J]
    ) -> None:
        super().__init__(transport, workspace)
        self._routes = routes
        self._new_job = new
        self._job = shown
        self._page: type[Page[J]] = Page[shown]  # type: ignore[valid-type]

    async def create(
        self,
        *,
        spec: Spec | JsonObject,
        name: str | None = None,
        workspace: str | None = None,
        description: str | None = None,
        project: str | None = None,
        ownership: JsonObject | None = None,
        custom_fields: JsonObject | None = None,
        idempotency_key: str | None = None,
    ) -> J:
        """Submit a job; the platform makes a name if none is given. `custom_fields={"priority": 5}` goes before others.

        `idempotency_key`: the same key again, in the same workspace, is answered with the job that was made the first
        time; ConflictError if it was another spec. Without one, each call has a key of its own, so that a call that
        got no answer is tried again and still makes one job.

        A spec that breaks a rule of its dialect's grammar is refused here (`tunesmith.errors.Invalid`, a line per
        rule); what needs the model or the data, and a spec in the shorthand, is refused by the platform in the same
        words.
        """
        body = wire.ask_in(
            self._routes.backend,
            self._new_job,
            name=name,
            description=description,
            project=project,
            spec=spec,
            ownership=ownership,
            custom_fields=custom_fields,
        )
        key = idempotency_key or retry.new_key()
        return await self._transport.post(self._job, self._in(self._routes.jobs, workspace), body, key=key)

    async def retrieve(self, name: str, *, workspace: str | None = None) -> J:
        """One job, with its spec as it runs."""
        return await self._transport.get(self._job, self._at(self._routes.job, name, workspace))

    async def list(
        self,
        *,
        workspace: str | None = None,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> AsyncPages[J]:
        """The workspace's jobs in this dialect (of all dialects: `client.customization.jobs`), newest first."""
        path = self._in(self._routes.jobs, workspace)
        return await AsyncPages.begin(self._transport, self._page, path, page, page_size, sort, filter)

    async def get_status(self, name: str, *, workspace: str | None = None) -> JobState:
        """How a job is doing."""
        return await self._transport.get(JobState, self._at(self._routes.status, name, workspace))

    async def cancel(self, name: str, *, workspace: str | None = None) -> J:
        """Ask a job to end; one that has ended stays as it is."""
        path = self._at(self._routes.cancel, name, workspace)
        return await self._transport.post(self._job, path, idempotent=True)

    async def delete(self, name: str, *, workspace: str | None = None) -> None:
        """Take a job out; one that runs is ended first. What it made stays."""
        await self._transport.remove(self._at(self._routes.job, name, workspace))

    async def get_logs(
        self, name: str, *, workspace: str | None = None, limit: int | None = None, page_cursor: str | None = None
    ) -> LogPage:
        """Lines of a job's log, as `client.jobs.get_logs`."""
        query = {"limit": limit, "page_cursor": page_cursor}
        return await self._transport.get(LogPage, self._at(self._routes.logs, name, workspace), query)


class AsyncDialect(Generic[J]):
    """`client.customization.automodel`, and the same for the other dialects."""

    def __init__(self, jobs: AsyncCustomizationJobs[J]) -> None:
        self.jobs = jobs


class AsyncCustomization:
    """`client.customization`."""

    def __init__(self, transport: AsyncTransport, workspace: str) -> None:
        def jobs(routes: Routes, new: type[CreateJob], shown: type[J]) -> AsyncCustomizationJobs[J]:
            return AsyncCustomizationJobs(transport, workspace, routes, new, shown)

        self.jobs = jobs(SHORTHAND, CreateShorthandJob, CustomizationJob)
        self.automodel = AsyncDialect(jobs(Routes.of("automodel"), CreateAutomodelJob, AutomodelJob))
        self.unsloth = AsyncDialect(jobs(Routes.of("unsloth"), CreateUnslothJob, UnslothJob))
        self.rl = AsyncDialect(jobs(Routes.of("rl"), CreateRlJob, RlJob))
        self._transport = transport

    async def health(self) -> JsonObject:
        """Whether jobs can be submitted, and in which dialects: `{"status": "ok", "contributors": [...]}`."""
        answer: JsonObject = wire.content(await self._transport.send("GET", paths.CUSTOMIZATION_HEALTH))
        return answer
