"""The steps of platform jobs as the stepper follows them and as workers see them, and the tasks in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, bindparam, insert, or_, select, update

from tunesmith.api.base import JsonObject, Page, PageRequest, paged
from tunesmith.api.jobs import FINAL, JobStatus
from tunesmith.api.platform_jobs import JobStep, JobTask, StepInContext
from tunesmith.errors import NotFound
from tunesmith.refs import Ref
from tunesmith.store.filtering import condition
from tunesmith.store.ids import new_id, now
from tunesmith.store.jobs import PLATFORM, Phase, listed_status
from tunesmith.store.pages import rows_of_page
from tunesmith.store.rows import ALL_WORKSPACES
from tunesmith.store.tables import job_steps, job_tasks, jobs

WITH_PROCESS = (JobStatus.PENDING, JobStatus.ACTIVE, JobStatus.CANCELLING, JobStatus.PAUSING)
"""Statuses of a step that has a process, or is about to."""
TO_BE_STARTED = (JobStatus.CREATED, JobStatus.RESUMING)
"""Statuses of a step that waits for a slot."""


@dataclass(frozen=True, slots=True)
class PlatformStep:
    """A step of a platform job with what its process depends on."""

    id: str
    job_id: str
    job: Ref
    attempt: int
    attempt_id: str
    request_id: str
    name: str
    task_id: str
    position: int
    spec: Mapping[str, Any]
    status: JobStatus
    keeper: Mapping[str, Any] | None
    """None = no process of it is known."""
    status_details: Mapping[str, Any]
    updated_at: datetime


class PlatformSteps:
    """Steps of platform jobs; what `get`, `page` and `tasks` show is there for all jobs."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    # -- what control sees and moves -------------------------------------------------------------------------------

    def begun(self, phase: Phase = Phase.RUNNING) -> list[PlatformStep]:
        """Of the jobs in a phase: steps that are not over, and those whose process is still there; oldest first.

        Few are running, since jobs that have begun go first: so who has a process and who waits for one is told apart
        outside.
        """
        return self._select(_BEGUN, phase=phase)

    def fresh(self, limit: int) -> list[PlatformStep]:
        """The first steps of jobs that have not begun, oldest first."""
        return self._select(_FRESH, phase=Phase.WAITING, limit=limit) if limit > 0 else []

    def find(self, step_id: str) -> PlatformStep | None:
        """The step of that id; None when it is gone."""
        found = self._select(_BY_ID, step_id=step_id)
        return found[0] if found else None

    def of(self, job_id: str) -> list[PlatformStep]:
        """Those of a job that exist, in order."""
        return self._select(_OF_JOB, job_id=job_id)

    def kept(self, job_id: str) -> bool:
        """Whether a step of the job has a process."""
        query = select(job_steps.c.id).where(job_steps.c.job_id == job_id, job_steps.c.keeper.is_not(None))
        return self.connection.execute(query).first() is not None

    def move(self, step: PlatformStep, to: JobStatus, **values: Any) -> bool:
        """The guarded move of a step; False when its status is not what it was any more."""
        where = (job_steps.c.id == step.id, job_steps.c.status == step.status)
        moved = self.connection.execute(update(job_steps).where(*where).values(status=to, updated_at=now(), **values))
        return moved.rowcount == 1

    def set(self, step_id: str, **values: Any) -> None:
        """Change columns that are not the step's status."""
        self.connection.execute(update(job_steps).where(job_steps.c.id == step_id).values(updated_at=now(), **values))

    # -- what the wire shows ---------------------------------------------------------------------------------------

    def row(self, job: Ref, name: str) -> RowMapping:
        """The step of any job, with its job's `backend` and `attempt_id`; NotFound says which and where."""
        query = select(job_steps, jobs.c.backend, jobs.c.attempt_id, jobs.c.project).join(jobs)
        where = (jobs.c.workspace == job.workspace, jobs.c.name == job.name, job_steps.c.name == name)
        row = self.connection.execute(query.where(*where)).mappings().one_or_none()
        if row is None:
            raise NotFound(f"Step '{name}' for job '{job.name}' not found in workspace '{job.workspace}'.")
        return row

    def get(self, job: Ref, name: str) -> JobStep:
        """The step by itself; NotFound without it."""
        row = self.row(job, name)
        config = {**((row["spec"] or {}).get("config") or {}), "_step_spec_name": row["name"]}
        beside = {"entity_id": row["id"], "workspace": job.workspace, "parent": row["attempt_id"]}
        return JobStep.model_validate({**row, **beside, "config": config})

    def page(self, workspace: str, job: str, asked: PageRequest) -> Page[StepInContext]:
        """One page of the steps of a job (`-` = of all); of a job that is gone there are none."""
        where: list[ColumnElement[bool]] = []
        if workspace != ALL_WORKSPACES or job != ALL_WORKSPACES:
            of_jobs = select(jobs.c.id)
            for column, value in ((jobs.c.workspace, workspace), (jobs.c.name, job)):
                of_jobs = of_jobs if value == ALL_WORKSPACES else of_jobs.where(column == value)
            where.append(job_steps.c.job_id.in_(of_jobs))
        if asked.filter is not None:
            columns = {name: job_steps.c[name] for name in ("id", "name", "created_at", "updated_at")}
            where.append(condition(asked.filter, {**columns, "status": listed_status(job_steps.c.status)}))
        rows, total = rows_of_page(self.connection, job_steps, asked, where, None)
        return paged(self._in_context(rows), total, asked)

    # -- tasks -----------------------------------------------------------------------------------------------------

    def put_task(self, step_id: str, name: str, **values: Any) -> None:
        """Change the task, or make it. `status_details` are merged into what it has."""
        where = (job_tasks.c.step_id == step_id, job_tasks.c.name == name)
        held = self.connection.execute(select(job_tasks.c.status_details).where(*where)).scalar_one_or_none()
        details, at = {**(held or {}), **(values.pop("status_details", None) or {})}, now()
        values |= {"status_details": details, "updated_at": at}
        if held is not None:
            self.connection.execute(update(job_tasks).where(*where).values(values))
            return
        fresh = {"id": new_id("platform-job-task"), "step_id": step_id, "name": name, "created_at": at}
        self.connection.execute(insert(job_tasks).values({"status": JobStatus.PENDING, **fresh, **values}))

    def task(self, job: Ref, step: str, name: str) -> JobTask:
        """A task by itself; NotFound without it."""
        for task in self.tasks(job, step):
            if task.name == name:
                return task
        where = f"for step '{step}' of job '{job.name}' not found in workspace '{job.workspace}'."
        raise NotFound(f"Task '{name}' {where}")

    def tasks(self, job: Ref, step: str) -> list[JobTask]:
        """Those of a step, oldest first; NotFound without the step."""
        row = self.row(job, step)
        query = select(job_tasks).where(job_tasks.c.step_id == row["id"]).order_by(job_tasks.c.created_at)
        found = [{**each} for each in self.connection.execute(query).mappings()]
        if row["backend"] != PLATFORM:  # its step has one task, which is the step seen from below
            found = [{**row, "id": row["task_id"], "name": row["task_id"], "step_id": row["id"], "error_stack": None}]
        beside = {"workspace": job.workspace, "project": row["project"], "parent": row["id"]}
        return [JobTask.model_validate({**each, **beside, "entity_id": each["id"]}) for each in found]

    # -- below -----------------------------------------------------------------------------------------------------

    def _select(self, query: Select[Any], **values: Any) -> list[PlatformStep]:
        return [_step(row) for row in self.connection.execute(query, values).mappings()]

    def _in_context(self, rows: Sequence[RowMapping]) -> list[StepInContext]:
        columns = (jobs.c.id, jobs.c.name, jobs.c.workspace, jobs.c.attempt_id, jobs.c.output_ref)
        query = select(*columns).where(jobs.c.id.in_({row["job_id"] for row in rows}))
        by_id = {job.id: job for job in self.connection.execute(query)}
        return [StepInContext.model_validate({**row, **_context(by_id[row["job_id"]], row["spec"])}) for row in rows]


# Made once: making a statement takes longer than running it.
_ALL = (
    select(
        *(job_steps.c[name] for name in ("id", "job_id", "name", "task_id", "position", "spec", "status", "keeper")),
        *(job_steps.c.status_details, job_steps.c.updated_at, jobs.c.workspace, jobs.c.name.label("job_name")),
        *(jobs.c.attempt, jobs.c.attempt_id, jobs.c.request_id),
    )
    .join(jobs)
    .where(jobs.c.backend == PLATFORM)
)
_OPEN = or_(job_steps.c.keeper.is_not(None), job_steps.c.status.not_in(FINAL))
_BEGUN = _ALL.where(jobs.c.phase == bindparam("phase"), _OPEN).order_by(jobs.c.created_at, jobs.c.id)
_FRESH = (
    _ALL.where(jobs.c.phase == bindparam("phase"), jobs.c.priority == 0)  # the index is by both, and none has another
    .order_by(jobs.c.created_at, jobs.c.id)
    .limit(bindparam("limit"))
)
_BY_ID = _ALL.where(job_steps.c.id == bindparam("step_id"))
_OF_JOB = _ALL.where(job_steps.c.job_id == bindparam("job_id")).order_by(job_steps.c.position)


def _step(row: RowMapping) -> PlatformStep:
    return PlatformStep(
        id=row["id"],
        job_id=row["job_id"],
        job=Ref(row["workspace"], row["job_name"]),
        attempt=row["attempt"],
        attempt_id=row["attempt_id"],
        request_id=row["request_id"] or "",
        name=row["name"],
        task_id=row["task_id"],
        position=row["position"],
        spec=row["spec"],
        status=JobStatus(row["status"]),
        keeper=row["keeper"],
        status_details=row["status_details"],
        updated_at=row["updated_at"],
    )


def _context(job: Any, spec: JsonObject | None) -> JsonObject:
    return {
        "job": job.name,
        "attempt_id": job.attempt_id,
        "fileset": job.output_ref or f"job-fileset-{job.name}",
        "workspace": job.workspace,
        "step_spec": spec,
    }
