"""The SDK's front door."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx

from tunesmith.api import paths
from tunesmith.api.base import JsonObject
from tunesmith.api.filesets import Collected, CollectGarbage
from tunesmith.client import options, wire
from tunesmith.client.aio.adapters import AsyncAdapters
from tunesmith.client.aio.customization import AsyncCustomization
from tunesmith.client.aio.files import AsyncFiles
from tunesmith.client.aio.inference import AsyncInference
from tunesmith.client.aio.jobs import AsyncJobs
from tunesmith.client.aio.models import AsyncModels
from tunesmith.client.aio.previews import AsyncPreviews
from tunesmith.client.aio.projects import AsyncProjects
from tunesmith.client.aio.secrets import AsyncSecrets
from tunesmith.client.aio.transport import AsyncTransport
from tunesmith.client.aio.workspaces import AsyncWorkspaces
from tunesmith.client.errors import InternalServerError
from tunesmith.client.waiting import AsyncSleep, async_sleep


class AsyncTunesmith:
    """A Tunesmith platform, one method per route.

    `base_url` falls back on TUNESMITH_BASE_URL, NMP_BASE_URL and http://localhost:8080, `workspace` on
    TUNESMITH_WORKSPACE, NMP_WORKSPACE and `default`; each call takes another `workspace=`. `timeout` is the longest
    silence borne, in seconds. `transport` takes the network's place, `sleep` that of waiting. Errors are in
    `tunesmith.client.errors`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        workspace: str | None = None,
        *,
        timeout: float = options.TIMEOUT_SECONDS,
        max_retries: int = options.MAX_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: AsyncSleep = async_sleep,
    ) -> None:
        self.base_url = options.find_base_url(base_url)
        self.workspace = options.find_workspace(workspace)
        link = AsyncTransport(self.base_url, timeout, max_retries, transport, sleep)
        self._transport = link
        self.workspaces = AsyncWorkspaces(link, self.workspace)
        self.projects = AsyncProjects(link, self.workspace)
        self.secrets = AsyncSecrets(link, self.workspace)
        self.files = AsyncFiles(link, self.workspace)
        self.models = AsyncModels(link, self.workspace)
        self.adapters = AsyncAdapters(link, self.workspace)
        self.jobs = AsyncJobs(link, self.workspace)
        self.customization = AsyncCustomization(link, self.workspace)
        self.previews = AsyncPreviews(link, self.workspace)
        self.inference = AsyncInference(link, self.workspace)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, workspace={self.workspace!r})"

    async def live(self) -> JsonObject:
        """Whether the platform's process answers."""
        return await self._object(paths.HEALTH_LIVE)

    async def health(self) -> JsonObject:
        """`{"status": "ready"}` or `{"status": "not_ready"}`; APIConnectionError if nobody is there. Asks once."""
        try:
            return await self._object(paths.HEALTH_READY, max_retries=0)
        except InternalServerError as error:
            if error.status_code == httpx.codes.SERVICE_UNAVAILABLE and isinstance(error.body, dict):
                detail: JsonObject = error.body.get("detail", error.body)
                return detail
            raise

    async def status(self) -> JsonObject:
        """What the platform says about itself and its control loops."""
        return await self._object(paths.STATUS)

    async def cluster_info(self) -> JsonObject:
        """Which version of the wire the platform speaks (`platform_version`), and what it is itself (`revision`)."""
        return await self._object(paths.CLUSTER_INFO)

    async def auth_discovery(self) -> JsonObject:
        """Whether the platform wants to know who is asking, and where it is told."""
        return await self._object(paths.AUTH_DISCOVERY)

    async def gc(self, *, dry_run: bool = False) -> Collected:
        """Throw away bytes that nothing needs any more, and count them; `dry_run` only counts."""
        body = wire.ask(CollectGarbage, dry_run=dry_run)
        return await self._transport.post(Collected, paths.COLLECT_GARBAGE, body, idempotent=True)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _object(self, path: str, max_retries: int | None = None) -> JsonObject:
        answer: JsonObject = wire.content(await self._transport.send("GET", path, max_retries=max_retries))
        return answer
