"""The steps of jobs, and the tasks in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from tunesmith.api.base import JsonObject
from tunesmith.api.jobs import FINAL, STEPS, JobStatus, Step, Task
from tunesmith.store.ids import hexadecimal, new_id, now
from tunesmith.store.rows import upsert
from tunesmith.store.tables import job_steps, job_tasks


class JobSteps:
    """Steps, addressed by job and name. A step exists from the moment the one before it is through."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def add(
        self,
        job_id: str,
        name: str,
        status: JobStatus,
        *,
        position: int | None = None,
        spec: JsonObject | None = None,
    ) -> None:
        """Make a step exist; nothing happens when it does already. `position` None = as customization jobs have it."""
        at = now()
        row = {
            "id": new_id("platform-job-step"),
            "task_id": f"task-{hexadecimal(32)}",
            "job_id": job_id,
            "name": name,
            "position": STEPS.index(name) if position is None else position,
            "spec": spec,
            "status": status,
            "status_details": {},
            "created_at": at,
            "updated_at": at,
        }
        self.connection.execute(upsert(self.connection, job_steps).values(row).on_conflict_do_nothing())

    def exists(self, job_id: str, name: str) -> bool:
        """Whether the job has come so far."""
        query = select(job_steps.c.id).where(job_steps.c.job_id == job_id, job_steps.c.name == name)
        return self.connection.execute(query).first() is not None

    def error(self, step_id: str) -> JsonObject | None:
        """The error details of a step that exists."""
        found: JsonObject | None = self.connection.execute(
            select(job_steps.c.error_details).where(job_steps.c.id == step_id)
        ).scalar_one()
        return found

    def move(self, job_id: str, name: str, status: JobStatus, error: JsonObject | None = None) -> None:
        """Move a step that exists."""
        where = (job_steps.c.job_id == job_id, job_steps.c.name == name)
        values = {"status": status, "error_details": error, "updated_at": now()}
        self.connection.execute(update(job_steps).where(*where).values(values))

    def move_open(self, job_id: str, status: JobStatus, error: JsonObject | None = None) -> None:
        """Give every step that is not final this status; the error goes to each."""
        where = (job_steps.c.job_id == job_id, job_steps.c.status.not_in(list(FINAL)))
        values = {"status": status, "error_details": error, "updated_at": now()}
        self.connection.execute(update(job_steps).where(*where).values(values))

    def merge_details(self, job_id: str, name: str, details: Mapping[str, Any]) -> None:
        """Merge `details` into the step's, key by key."""
        if not details:
            return
        where = (job_steps.c.job_id == job_id, job_steps.c.name == name)
        held = self.connection.execute(select(job_steps.c.status_details).where(*where)).scalar_one()
        values = {"status_details": {**held, **details}, "updated_at": now()}
        self.connection.execute(update(job_steps).where(*where).values(values))

    def of(self, job_ids: Sequence[str]) -> dict[str, list[Step]]:
        """The steps of several jobs, by job, in order."""
        query = select(job_steps).where(job_steps.c.job_id.in_(job_ids)).order_by(job_steps.c.position)
        rows = self.connection.execute(query).mappings().all()
        tasks = self._tasks([row["id"] for row in rows if row["spec"] is not None])
        shown: dict[str, list[Step]] = defaultdict(list)
        for row in rows:
            shown[row["job_id"]].append(_step(row, tasks.get(row["id"], [])))
        return shown

    def _tasks(self, step_ids: Sequence[str]) -> dict[str, list[Task]]:
        if not step_ids:
            return {}
        query = select(job_tasks).where(job_tasks.c.step_id.in_(step_ids)).order_by(job_tasks.c.created_at)
        shown: dict[str, list[Task]] = defaultdict(list)
        for row in self.connection.execute(query).mappings():
            shown[row["step_id"]].append(Task.model_validate(dict(row)))
        return shown


def _step(row: RowMapping, tasks: Iterable[Task]) -> Step:
    """A customization job's step has one task, which is the step seen from below."""
    if row["spec"] is None:
        tasks = [Task.model_validate({**row, "id": row["task_id"], "name": row["task_id"], "error_stack": None})]
    return Step.model_validate({**row, "error_details": row["error_details"] or {}, "tasks": list(tasks)})
