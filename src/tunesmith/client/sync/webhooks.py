# Made by scripts/unasync.py from ../aio/webhooks.py: change that file and run the script again.
"""Who is told of changes of jobs."""

from __future__ import annotations

from collections.abc import Iterable

from tunesmith.api import paths
from tunesmith.api.base import Page
from tunesmith.api.jobs import JobStatus
from tunesmith.api.webhooks import CreateWebhook, Webhook
from tunesmith.client import wire
from tunesmith.client.sync.pages import Pages
from tunesmith.client.sync.resource import Resource


class Webhooks(Resource):
    """`client.jobs.webhooks`."""

    def create(
        self,
        name: str,
        *,
        url: str,
        secret: str,
        statuses: Iterable[JobStatus | str] | None = None,
        description: str | None = None,
        project: str | None = None,
        workspace: str | None = None,
    ) -> Webhook:
        """Have `url` told, signed with `secret` (the name of one), of every change of a job's status in the workspace.

        With `statuses` only of changes to one of these.
        """
        path, name = self._new(paths.WEBHOOKS, name, workspace)
        body = wire.ask(
            CreateWebhook,
            name=name,
            url=url,
            secret=secret,
            statuses=None if statuses is None else list(statuses),
            description=description,
            project=project,
        )
        return self._make(Webhook, path, body)

    def list(
        self,
        *,
        workspace: str | None = None,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> Pages[Webhook]:
        """The workspace's webhooks, newest first."""
        path = self._in(paths.WEBHOOKS, workspace)
        return Pages.begin(self._transport, Page[Webhook], path, page, page_size, sort, filter)

    def retrieve(self, name: str, *, workspace: str | None = None) -> Webhook:
        """One webhook, and how many deliveries it is still owed."""
        return self._transport.get(Webhook, self._at(paths.WEBHOOK, name, workspace))

    def delete(self, name: str, *, workspace: str | None = None) -> None:
        """Forget a webhook, and what it is still owed."""
        self._transport.remove(self._at(paths.WEBHOOK, name, workspace))
