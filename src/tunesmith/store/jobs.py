"""Jobs in the database, with their steps and metrics; every change of state is a guarded update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, func, not_, select, true, update

from tunesmith.api.base import JsonObject, Page, PageRequest
from tunesmith.api.filters import Op, Test
from tunesmith.api.jobs import FINAL, STEPS, AutomodelJob, Job, JobState, JobStatus, Step, Task
from tunesmith.errors import BadRequest, Conflict
from tunesmith.handoff.plan import Plan
from tunesmith.refs import Ref
from tunesmith.store.filesets import Snapshot
from tunesmith.store.filtering import condition
from tunesmith.store.ids import hexadecimal, new_id, now
from tunesmith.store.rows import Named, upsert
from tunesmith.store.tables import job_steps, jobs, metrics

SHOWN_POINTS = 500
"""Points of a series that a status shows at most."""

SOURCE = "customization"
"""What the jobs service calls all of these; a filter by the dialect's name matches too."""


class Phase(StrEnum):
    """Where a job stands inside the house; the wire's status says less."""

    WAITING = "waiting"
    """Accepted, nothing started."""
    PREPARING = "preparing"
    """Its rows are being read."""
    QUEUED = "queued"
    """Prepared; waits for a device."""
    TRAINING = "training"
    """Holds a device."""
    DONE = "done"
    """Its status is final."""


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as control sees it."""

    id: str
    ref: Ref
    status: JobStatus
    phase: Phase
    plan: Plan
    inputs: Mapping[str, Any]
    """`model`, `data` and perhaps `validation`: snapshots of the filesets they were made from."""
    model: Ref
    output: Ref
    output_description: str | None
    status_details: Mapping[str, Any]
    attempt: int
    events_offset: int
    keeper: Mapping[str, Any] | None
    ending: Mapping[str, Any] | None
    request_id: str
    """Of the request that submitted it; "" when nobody knows."""

    @property
    def snapshots(self) -> dict[str, Snapshot]:
        """The inputs, read back."""
        return {name: Snapshot.of_json(stored) for name, stored in self.inputs.items()}


class Jobs(Named):
    """Customization jobs."""

    table = jobs
    kind = "platform-job"
    missing = "Job '{name}' not found in workspace '{workspace}'."
    filterable = {
        "status": lambda op, value: _status(op, value),
        "source": lambda op, value: _source(op, value),
        "backend": jobs.c.backend,
    }
    twin = (
        "Job '{name}' already exists in workspace '{workspace}'. "
        "Choose a different job name or delete the existing job before creating a new one."
    )

    def create(self, ref: Ref, **values: Any) -> None:
        """A new job in phase waiting, with its first step."""
        row = self.insert(
            ref.workspace,
            ref.name,
            status=JobStatus.CREATED,
            phase=Phase.WAITING,
            attempt_id=new_id("platform-job-attempt"),
            attempt=1,
            events_offset=0,
            **values,
        )
        self.add_step(row["id"], STEPS[0], JobStatus.CREATED)

    # -- what the wire shows ---------------------------------------------------------------------------------------

    def get(self, workspace: str, name: str) -> Job:
        """The job as the jobs service shows it; NotFound without it."""
        return self._job(self.row(workspace, name))

    def get_automodel(self, workspace: str, name: str) -> AutomodelJob:
        """The job as the customization API shows it; NotFound without it."""
        return self._automodel_job(self.row(workspace, name))

    def state(self, workspace: str, name: str) -> JobState:
        """Status, steps and tasks; NotFound without the job."""
        row = self.row(workspace, name)
        return JobState.model_validate({**row, **self._shown(row), "steps": self._steps(row["id"])})

    def page(self, workspace: str, asked: PageRequest) -> Page[Job]:
        """One page of a workspace's jobs."""
        return self.page_of(workspace, asked, lambda rows: [self._job(row) for row in rows])

    def page_automodel(self, workspace: str, asked: PageRequest) -> Page[AutomodelJob]:
        """One page of a workspace's automodel jobs."""
        automodel = jobs.c.backend == "automodel"
        return self.page_of(workspace, asked, lambda rows: [self._automodel_job(row) for row in rows], automodel)

    # -- what control sees and moves -------------------------------------------------------------------------------

    def stored(self, ref: Ref) -> StoredJob:
        """The job by name; NotFound without it."""
        return _stored(self.row(ref.workspace, ref.name))

    def by_id(self, job_id: str) -> StoredJob:
        """The job of that id, which must exist."""
        return _stored(self.connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one())

    def in_phase(self, *phases: Phase, limit: int = 1000) -> list[StoredJob]:
        """Jobs in these phases, oldest first."""
        query = select(jobs).where(jobs.c.phase.in_(phases)).order_by(jobs.c.created_at, jobs.c.id).limit(limit)
        return [_stored(row) for row in self.connection.execute(query).mappings()]

    def count(self, phase: Phase) -> int:
        """How many jobs are in a phase."""
        return self.connection.execute(select(func.count()).where(jobs.c.phase == phase)).scalar_one()

    def making(self, output: Ref) -> str | None:
        """The name of the unfinished job that will make this output, or None."""
        query = select(jobs.c.name).where(jobs.c.output_ref == str(output), jobs.c.phase != Phase.DONE)
        return self.connection.execute(query).scalars().first()

    def move(self, job_id: str, to: Phase, status: JobStatus, *, allowed_from: Iterable[Phase], **values: Any) -> None:
        """The guarded move of a job: Conflict when it is in none of `allowed_from` any more."""
        sources = list(allowed_from)
        statement = update(jobs).where(jobs.c.id == job_id, jobs.c.phase.in_(sources))
        moved = self.connection.execute(statement.values(phase=to, status=status, **values))
        if moved.rowcount != 1:
            raise Conflict(f"job {job_id} is not in {', '.join(sources)} any more, so it cannot go to {to}")

    def set(self, job_id: str, **values: Any) -> None:
        """Change columns that are not the job's state: keeper, offset, ending."""
        self.connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))

    def add_step(self, job_id: str, name: str, status: JobStatus) -> None:
        """Make a step exist; nothing happens when it does already."""
        at = now()
        row = {
            "id": new_id("platform-job-step"),
            "task_id": f"task-{hexadecimal(32)}",
            "job_id": job_id,
            "name": name,
            "position": STEPS.index(name),
            "status": status,
            "status_details": {},
            "created_at": at,
            "updated_at": at,
        }
        self.connection.execute(upsert(self.connection, job_steps).values(row).on_conflict_do_nothing())

    def set_step(self, job_id: str, name: str, status: JobStatus, error: JsonObject | None = None) -> None:
        """Move a step that exists."""
        where = (job_steps.c.job_id == job_id, job_steps.c.name == name)
        values = {"status": status, "error_details": error, "updated_at": now()}
        self.connection.execute(update(job_steps).where(*where).values(values))

    def end_open_steps(self, job_id: str, status: JobStatus, error: JsonObject | None = None) -> None:
        """Give every step that is not final this status; the error goes to each."""
        where = (job_steps.c.job_id == job_id, job_steps.c.status.not_in(list(FINAL)))
        values = {"status": status, "error_details": error, "updated_at": now()}
        self.connection.execute(update(job_steps).where(*where).values(values))

    def merge_details(self, job_id: str, step: str | None, details: Mapping[str, Any]) -> None:
        """Merge `details` into the job's and, unless it is None, the step's, key by key."""
        if not details:
            return
        if step is not None:
            where = (job_steps.c.job_id == job_id, job_steps.c.name == step)
            held = self.connection.execute(select(job_steps.c.status_details).where(*where)).scalar_one()
            values = {"status_details": {**held, **details}, "updated_at": now()}
            self.connection.execute(update(job_steps).where(*where).values(values))
        held = self.connection.execute(select(jobs.c.status_details).where(jobs.c.id == job_id)).scalar_one()
        self.connection.execute(update(jobs).where(jobs.c.id == job_id).values(status_details={**held, **details}))

    def add_metrics(self, job_id: str, points: Iterable[tuple[str, int, int, float]]) -> None:
        """Points (series, step, epoch, value); the last one of a step wins."""
        rows = [
            {"job_id": job_id, "series": series, "step": step, "epoch": epoch, "value": finite(value)}
            for series, step, epoch, value in points
        ]
        if rows:
            statement = upsert(self.connection, metrics)
            wins = {"epoch": statement.excluded.epoch, "value": statement.excluded.value}
            keys = ["job_id", "series", "step"]
            self.connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=wins), rows)

    # -- rows as the wire sees them --------------------------------------------------------------------------------

    def _job(self, row: RowMapping) -> Job:
        steps = [{"name": name, "executor": {"provider": "cpu", "profile": "default"}} for name in STEPS]
        extra = {"source": SOURCE, "platform_spec": {"steps": steps}, "fileset": row["output_ref"]}
        return Job.model_validate({**row, **extra, **self._shown(row)})

    def _automodel_job(self, row: RowMapping) -> AutomodelJob:
        return AutomodelJob.model_validate({**row, **self._shown(row), "steps": self._steps(row["id"])})

    def _shown(self, row: RowMapping) -> Mapping[str, Any]:
        series = self._series(row["id"])
        return {"status_details": {**row["status_details"], **({"metrics": series} if series else {})}}

    def _series(self, job_id: str) -> dict[str, list[JsonObject]]:
        """The metrics, thinned evenly to `SHOWN_POINTS` a series; the last point always stays."""
        query = select(metrics).where(metrics.c.job_id == job_id).order_by(metrics.c.series, metrics.c.step)
        shown: dict[str, list[JsonObject]] = {}
        for row in self.connection.execute(query).mappings():
            point = {"step": row["step"], "epoch": row["epoch"], "value": row["value"]}
            shown.setdefault(row["series"], []).append(point)
        return {name: _thin(points) for name, points in shown.items()}

    def _steps(self, job_id: str) -> list[Step]:
        query = select(job_steps).where(job_steps.c.job_id == job_id).order_by(job_steps.c.position)
        shown = []
        for row in self.connection.execute(query).mappings():
            task = Task.model_validate({**row, "id": row["task_id"], "name": row["task_id"], "error_stack": None})
            shown.append(Step.model_validate({**row, "error_details": row["error_details"] or {}, "tasks": [task]}))
        return shown


def _status(op: Op, value: Any) -> ColumnElement[bool]:
    """One status or several, separated by commas; BadRequest for what is none: no job would be found."""
    if op is Op.EQ and "," in str(value):
        op, value = Op.IN, str(value).split(",")
    for each in value if op in (Op.IN, Op.NIN) else [value] if op is Op.EQ else []:
        if each is not None and each not in list(JobStatus):
            raise BadRequest(f"filter: status '{each}' is none of {', '.join(JobStatus)}")
    return condition(Test("status", op, value), {"status": jobs.c.status})


def _source(op: Op, value: Any) -> ColumnElement[bool]:
    """`customization` means all of them; else the dialect."""
    wanted = set(value) if op in (Op.IN, Op.NIN) else {value}
    found = true() if SOURCE in wanted else jobs.c.backend.in_(wanted)
    return not_(found) if op is Op.NIN else found


def _stored(row: RowMapping) -> StoredJob:
    return StoredJob(
        id=row["id"],
        ref=Ref(row["workspace"], row["name"]),
        status=JobStatus(row["status"]),
        phase=Phase(row["phase"]),
        plan=Plan.model_validate(row["plan"]),
        inputs=row["inputs"],
        model=Ref.unchecked(row["model_ref"]),
        output=Ref.unchecked(row["output_ref"]),
        output_description=row["spec"]["output"]["description"],
        status_details=row["status_details"],
        attempt=row["attempt"],
        events_offset=row["events_offset"],
        keeper=row["keeper"],
        ending=row["ending"],
        request_id=row["request_id"] or "",
    )


def _thin(points: list[JsonObject]) -> list[JsonObject]:
    if len(points) <= SHOWN_POINTS:
        return points
    last = len(points) - 1
    return [points[round(i * last / (SHOWN_POINTS - 1))] for i in range(SHOWN_POINTS)]


def finite(value: float) -> float | None:
    """The number, or None for what JSON cannot hold (NaN, infinity)."""
    return value if math.isfinite(value) else None
