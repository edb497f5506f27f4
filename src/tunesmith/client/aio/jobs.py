"""Jobs, whatever their kind: what there is, how they are doing, what they say."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

from tunesmith.api import paths
from tunesmith.api.base import JsonObject, Page
from tunesmith.api.job_steps import PlatformSpec
from tunesmith.api.jobs import Job, JobState, LogLine, LogPage
from tunesmith.api.platform_jobs import CreatePlatformJob, ExecutionProfile
from tunesmith.client import retry, wire
from tunesmith.client.aio.pages import AsyncPages
from tunesmith.client.aio.steps import AsyncResults, AsyncSteps, AsyncTasks
from tunesmith.client.aio.transport import AsyncTransport
from tunesmith.client.aio.watching import AsyncWatching
from tunesmith.client.aio.webhooks import AsyncWebhooks
from tunesmith.client.errors import APIError, WaitTimeoutError, away

POLL_SECONDS = 1.0
LOG_LINES = 1000
"""Lines asked for at once when a log is followed."""

Series = dict[str, list[JsonObject]]
"""Name of a series -> its points: `{"train_loss": [{"step": 1, "epoch": 1, "value": 2.3}, ...]}`."""

Profiles = list[ExecutionProfile]


class AsyncJobs(AsyncWatching):
    """`client.jobs`."""

    def __init__(self, transport: AsyncTransport, workspace: str) -> None:
        super().__init__(transport, workspace)
        self.steps = AsyncSteps(transport, workspace)
        self.tasks = AsyncTasks(transport, workspace)
        self.results = AsyncResults(transport, workspace)
        self.webhooks = AsyncWebhooks(transport, workspace)

    async def create(
        self,
        *,
        source: str,
        spec: JsonObject,
        platform_spec: PlatformSpec | JsonObject,
        name: str | None = None,
        workspace: str | None = None,
        description: str | None = None,
        project: str | None = None,
        ownership: JsonObject | None = None,
        custom_fields: JsonObject | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a job of steps, each a command: `{"steps": [{"name": "a", "executor": {"provider": "subprocess",
        "command": ["true"]}}]}`; fine-tuning jobs are submitted by `client.customization`.

        `source` is what the caller calls itself, `spec` is kept and never read. PermissionDeniedError where the
        platform's setting `allow_subprocess_jobs` is off. `idempotency_key` as in `client.customization`.
        """
        body = wire.ask(
            CreatePlatformJob,
            name=name,
            description=description,
            project=project,
            source=source,
            spec=spec,
            platform_spec=platform_spec,
            ownership=ownership,
            custom_fields=custom_fields,
        )
        key = idempotency_key or retry.new_key()
        return await self._transport.post(Job, self._in(paths.JOBS, workspace), body, key=key)

    async def retrieve(self, name: str, *, workspace: str | None = None) -> Job:
        """One job."""
        return await self._transport.get(Job, self._at(paths.JOB, name, workspace))

    async def list(
        self,
        *,
        workspace: str | None = None,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
        status: str | None = None,
        source: str | None = None,
    ) -> AsyncPages[Job]:
        """The workspace's jobs, newest first; with `status` (several separated by commas) or `source` only those."""
        path = self._in(paths.JOBS, workspace)
        more = {"filter[status]": status, "filter[source]": source}
        return await AsyncPages.begin(self._transport, Page[Job], path, page, page_size, sort, filter, **more)

    async def get_status(self, name: str, *, workspace: str | None = None) -> JobState:
        """How a job is doing: its status, progress, steps, and error if it has one."""
        return await self._transport.get(JobState, self._at(paths.JOB_STATUS, name, workspace))

    async def cancel(self, name: str, *, workspace: str | None = None) -> Job:
        """Ask a job to end; one that has ended stays as it is."""
        return await self._transport.post(Job, self._at(paths.JOB_CANCEL, name, workspace), idempotent=True)

    async def pause(self, name: str, *, workspace: str | None = None) -> Job:
        """Ask a job for a checkpoint and a rest; its devices are free then. One that has ended stays as it is."""
        return await self._transport.post(Job, self._at(paths.JOB_PAUSE, name, workspace), idempotent=True)

    async def resume(self, name: str, *, workspace: str | None = None) -> Job:
        """Let a paused job go on from its checkpoint, when its turn comes."""
        return await self._transport.post(Job, self._at(paths.JOB_RESUME, name, workspace), idempotent=True)

    async def delete(self, name: str, *, workspace: str | None = None) -> None:
        """Take a job out; one that runs is ended first. What it made stays."""
        await self._transport.remove(self._at(paths.JOB, name, workspace))

    async def update_status_details(self, name: str, *, body: JsonObject, workspace: str | None = None) -> None:
        """Merge into a job's status details, key by key."""
        await self._transport.send("PATCH", self._at(paths.JOB_STATUS_DETAILS, name, workspace), body=body)

    async def list_execution_profiles(self) -> Profiles:
        """The ways in which steps of jobs are run on this platform; none where such jobs are not allowed."""
        answer = wire.content(await self._transport.send("GET", paths.EXECUTION_PROFILES))
        return [ExecutionProfile.model_validate(each) for each in answer]

    async def metrics(self, name: str, *, workspace: str | None = None) -> Series:
        """Every point of every series; the status has at most 500 of each."""
        answer: Series = wire.content(await self._transport.send("GET", self._at(paths.JOB_METRICS, name, workspace)))
        return answer

    async def get_logs(
        self,
        name: str,
        *,
        workspace: str | None = None,
        limit: int | None = None,
        page_cursor: str | None = None,
        attempt_id: str | None = None,
        step_id: str | None = None,
        task_id: str | None = None,
    ) -> LogPage:
        """Lines of a job's log, oldest first, from `page_cursor` (`next_page` of the page before) on.

        With `attempt_id`, `step_id` or `task_id` only what was written there.
        """
        query = {
            "limit": limit,
            "page_cursor": page_cursor,
            "attempt_id": attempt_id,
            "step_id": step_id,
            "task_id": task_id,
        }
        return await self._transport.get(LogPage, self._at(paths.JOB_LOGS, name, workspace), query)

    async def wait(
        self,
        name: str,
        *,
        workspace: str | None = None,
        on_status: Callable[[JobState], None] | None = None,
        on_silence: Callable[[APIError], None] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 one word for both clients
        interval: float = POLL_SECONDS,
        patience: float = 0.0,
    ) -> JobState:
        """Ask how a job is doing until it is completed, failed or cancelled; `on_status` hears every answer, also that
        it is paused.

        `timeout`, `interval` and `patience` are seconds. WaitTimeoutError after `timeout`, and the job goes on. A
        platform that cannot be reached is asked again for `patience`, and `on_silence` told each time; then
        APIConnectionError or InternalServerError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        heard = time.monotonic()
        while True:
            try:
                state = await self.get_status(name, workspace=workspace)
            except APIError as error:
                if not away(error) or time.monotonic() - heard >= patience:
                    raise
                status = "not known, since the platform does not answer,"
                if on_silence:
                    on_silence(error)
            else:
                heard, status = time.monotonic(), str(state.status)
                if on_status:
                    on_status(state)
                if state.status.final:
                    return state
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"job '{name}' is still {status} after {timeout:g} s")
            await self._transport.sleep(interval)

    async def follow_logs(
        self, name: str, *, workspace: str | None = None, interval: float = POLL_SECONDS
    ) -> AsyncIterator[LogLine]:
        """A job's log line by line, waiting for more until the job has ended."""
        cursor: str | None = None
        shown = 0
        ended = False
        while True:
            page = await self.get_logs(name, workspace=workspace, limit=LOG_LINES, page_cursor=cursor)
            for line in page.data[shown:]:
                yield line
            if page.next_page and page.next_page != cursor:
                cursor, shown = page.next_page, 0
                continue
            if ended:
                return
            shown = len(page.data)
            ended = (await self.get_status(name, workspace=workspace)).status.final
            if not ended:
                await self._transport.sleep(interval)
