# Made by scripts/unasync.py from ../aio/client.py: change that file and run the script again.
"""The SDK's front door."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx

from tunesmith.api import paths
from tunesmith.api.base import JsonObject
from tunesmith.api.filesets import Collected, CollectGarbage
from tunesmith.client import options, wire
from tunesmith.client.errors import InternalServerError
from tunesmith.client.sync.adapters import Adapters
from tunesmith.client.sync.customization import Customization
from tunesmith.client.sync.files import Files
from tunesmith.client.sync.inference import Inference
from tunesmith.client.sync.jobs import Jobs
from tunesmith.client.sync.models import Models
from tunesmith.client.sync.previews import Previews
from tunesmith.client.sync.projects import Projects
from tunesmith.client.sync.secrets import Secrets
from tunesmith.client.sync.transport import Transport
from tunesmith.client.sync.workspaces import Workspaces
from tunesmith.client.waiting import Sleep, sleep


class Tunesmith:
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
        transport: httpx.BaseTransport | None = None,
        sleep: Sleep = sleep,
    ) -> None:
        self.base_url = options.find_base_url(base_url)
        self.workspace = options.find_workspace(workspace)
        link = Transport(self.base_url, timeout, max_retries, transport, sleep)
        self._transport = link
        self.workspaces = Workspaces(link, self.workspace)
        self.projects = Projects(link, self.workspace)
        self.secrets = Secrets(link, self.workspace)
        self.files = Files(link, self.workspace)
        self.models = Models(link, self.workspace)
        self.adapters = Adapters(link, self.workspace)
        self.jobs = Jobs(link, self.workspace)
        self.customization = Customization(link, self.workspace)
        self.previews = Previews(link, self.workspace)
        self.inference = Inference(link, self.workspace)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, workspace={self.workspace!r})"

    def live(self) -> JsonObject:
        """Whether the platform's process answers."""
        return self._object(paths.HEALTH_LIVE)

    def health(self) -> JsonObject:
        """`{"status": "ready"}` or `{"status": "not_ready"}`; APIConnectionError if nobody is there. Asks once."""
        try:
            return self._object(paths.HEALTH_READY, max_retries=0)
        except InternalServerError as error:
            if error.status_code == httpx.codes.SERVICE_UNAVAILABLE and isinstance(error.body, dict):
                detail: JsonObject = error.body.get("detail", error.body)
                return detail
            raise

    def status(self) -> JsonObject:
        """What the platform says about itself and its control loops."""
        return self._object(paths.STATUS)

    def cluster_info(self) -> JsonObject:
        """Which version of the wire the platform speaks (`platform_version`), and what it is itself (`revision`)."""
        return self._object(paths.CLUSTER_INFO)

    def auth_discovery(self) -> JsonObject:
        """Whether the platform wants to know who is asking, and where it is told."""
        return self._object(paths.AUTH_DISCOVERY)

    def gc(self, *, dry_run: bool = False) -> Collected:
        """Throw away bytes that nothing needs any more, and count them; `dry_run` only counts."""
        body = wire.ask(CollectGarbage, dry_run=dry_run)
        return self._transport.post(Collected, paths.COLLECT_GARBAGE, body, idempotent=True)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _object(self, path: str, max_retries: int | None = None) -> JsonObject:
        answer: JsonObject = wire.content(self._transport.send("GET", path, max_retries=max_retries))
        return answer
