"""Webhooks in the database, and what they are still owed: written in the transaction of the change that it tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, bindparam, delete, func, insert, select, update

from tunesmith.api.base import JsonObject, Page, PageRequest
from tunesmith.api.jobs import JobStatus
from tunesmith.api.webhooks import ChangedJob, CreateWebhook, JobChanged, Webhook
from tunesmith.refs import Ref, check_name
from tunesmith.store.ids import new_id, now
from tunesmith.store.rows import Named
from tunesmith.store.tables import deliveries, jobs, webhooks


class Webhooks(Named):
    """Addresses that are told of changes."""

    table = webhooks
    kind = "webhook"
    missing = "Webhook '{name}' not found in workspace '{workspace}'"
    twin = "Webhook '{name}' already exists in workspace '{workspace}'."

    def create(self, workspace: str, asked: CreateWebhook, secret: Ref) -> Webhook:
        """A new webhook; Conflict if the name is taken."""
        row = self.insert(
            workspace,
            check_name(asked.name),
            url=asked.url,
            secret_ref=str(secret),
            statuses=[status for status in JobStatus if status in asked.statuses],
            description=asked.description,
            project=asked.project,
        )
        return self._read([row])[0]

    def get(self, workspace: str, name: str) -> Webhook:
        """The webhook; NotFound without it."""
        return self._read([self.row(workspace, name)])[0]

    def page(self, workspace: str, asked: PageRequest) -> Page[Webhook]:
        """One page of a workspace's webhooks."""
        return self.page_of(workspace, asked, self._read)

    def _read(self, rows: Sequence[RowMapping]) -> list[Webhook]:
        ids = [row["id"] for row in rows]
        counted = select(deliveries.c.webhook_id, func.count()).where(deliveries.c.webhook_id.in_(ids))
        owed = {row[0]: row[1] for row in self.connection.execute(counted.group_by(deliveries.c.webhook_id))}
        return [
            Webhook.model_validate({**row, "secret": row["secret_ref"], "owed": owed.get(row["id"], 0)}) for row in rows
        ]


@dataclass(frozen=True, slots=True)
class Receiver:
    """A webhook to which something is due."""

    id: str
    ref: Ref
    url: str
    secret: Ref


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a webhook is to be told."""

    id: str
    body: JsonObject
    tries: int
    """How often it was sent in vain."""


class Deliveries:
    """What webhooks are owed."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def owe(self, job_id: str, to: JobStatus, error: JsonObject | None = None, *, new: bool = False) -> None:
        """A job is about to get this status, or (`new`) has just been made: each webhook that wants to know is owed it.

        One look at an index where the workspace has no webhooks; nothing where the status stays as it is.
        """
        at = now()
        owed = [
            {"id": new_id("msg"), "webhook_id": row["webhook_id"], "tries": 0, "due_at": at, "created_at": at}
            | {"body": _body(row, to, error, at, new=new)}
            for row in self.connection.execute(_WANTING, {"job_id": job_id}).mappings()
            if (new or row["status"] != to) and (not row["statuses"] or to in row["statuses"])
        ]
        if owed:
            self.connection.execute(insert(deliveries), owed)

    def receivers(self, at: datetime) -> list[Receiver]:
        """The webhooks to which something is due by then."""
        due = select(deliveries.c.webhook_id).where(deliveries.c.due_at <= at)
        rows = self.connection.execute(select(webhooks).where(webhooks.c.id.in_(due))).mappings()
        return [
            Receiver(row["id"], Ref(row["workspace"], row["name"]), row["url"], Ref.unchecked(row["secret_ref"]))
            for row in rows
        ]

    def due(self, webhook_id: str, at: datetime) -> Delivery | None:
        """What the webhook is to be told first; None when nothing is due by then."""
        columns = (deliveries.c.id, deliveries.c.body, deliveries.c.tries)
        query = select(*columns).where(deliveries.c.webhook_id == webhook_id, deliveries.c.due_at <= at)
        row = self.connection.execute(query.order_by(deliveries.c.due_at, deliveries.c.created_at).limit(1)).first()
        return Delivery(*row) if row else None

    def later(self, delivery: Delivery, due_at: datetime) -> None:
        """It was sent in vain once more."""
        values = {"tries": delivery.tries + 1, "due_at": due_at}
        self.connection.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(values))

    def settle(self, delivery: Delivery) -> None:
        """It is not owed any more."""
        self.connection.execute(delete(deliveries).where(deliveries.c.id == delivery.id))


_JOB = tuple(jobs.c[name] for name in ("id", "name", "workspace", "source", "status"))
_WANTING: Select[Any] = (  # made once: building a statement takes longer than running it
    select(*_JOB, webhooks.c.id.label("webhook_id"), webhooks.c.statuses)
    .join(webhooks, webhooks.c.workspace == jobs.c.workspace)
    .where(jobs.c.id == bindparam("job_id"))
)


def _body(row: RowMapping, to: JobStatus, error: JsonObject | None, at: datetime, *, new: bool) -> JsonObject:
    previous = None if new else row["status"]
    job = ChangedJob.model_validate({**row, "status": to, "previous": previous, "error_details": error})
    return JobChanged(timestamp=f"{at.isoformat(timespec='microseconds')}Z", data=job).model_dump(mode="json")
