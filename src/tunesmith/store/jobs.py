"""Jobs in the database; every change of state is a guarded update. Their steps are in job_steps.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from sqlalchemy import ColumnElement, RowMapping, delete, func, insert, not_, or_, select, update

from tunesmith.api.base import JsonObject, Page, PageRequest
from tunesmith.api.doors import SHORTHAND
from tunesmith.api.filters import Op, Test
from tunesmith.api.jobs import STEPS, CustomizationJob, Job, JobState, JobStatus
from tunesmith.errors import BadRequest, Conflict, NotFound
from tunesmith.handoff.plan import Plan
from tunesmith.refs import Ref
from tunesmith.store.filesets import Snapshot
from tunesmith.store.filtering import condition
from tunesmith.store.ids import new_id, now
from tunesmith.store.job_steps import JobSteps
from tunesmith.store.metrics import SHOWN_SERIES, Metrics, thinned
from tunesmith.store.rows import Named
from tunesmith.store.tables import discards, jobs, secrets
from tunesmith.store.webhooks import Deliveries

SOURCE = "customization"
"""What the jobs service calls all customization jobs; a filter by the dialect's name matches too."""
OWN_SECRET = "own_secret"  # noqa: S105 a key, not a secret
"""Key of `asked`: the name of the secret that is the job's alone."""
PLATFORM = "platform"
"""The backend of jobs whose steps somebody else defines."""


class Phase(StrEnum):
    """Where a job stands inside the house; the wire's status says less."""

    WAITING = "waiting"
    """Accepted, nothing started."""
    PREPARING = "preparing"
    """Its inputs are fetched and its rows are read."""
    QUEUED = "queued"
    """Prepared; waits for devices."""
    TRAINING = "training"
    """Holds its devices."""
    PAUSED = "paused"
    """Holds nothing; goes on where it was when it is resumed."""
    RUNNING = "running"
    """A platform job some step of which has begun."""
    DONE = "done"
    """Its status is final, and nothing of it runs."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job in the queue, as far as its turn depends on it."""

    id: str
    workspace: str
    priority: int
    created_at: datetime
    devices: int = 1
    named: tuple[str, ...] = ()
    """Indices of the devices that it may take; empty = any."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a customization job becomes."""

    kind: Literal["adapter", "model"]
    finetuning_type: Literal["lora", "lora_merged", "all_weights"]
    description: str | None = None
    rank: int | None = None
    alpha: float | None = None
    deployment: Any = None
    """Name of a deployment config, or parameters, of what is deployed when the job is through; None = nothing."""


@dataclass(frozen=True, slots=True)
class Active:
    """A customization job as far as its processes are followed: what is read of it several times a second."""

    id: str
    ref: Ref
    status: JobStatus
    phase: Phase
    attempt: int
    attempt_step: int
    """Step of the checkpoint that the attempt began from; 0 = none."""
    events_offset: int
    keeper: Mapping[str, Any] | None
    ending: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class StoredJob(Active):
    """A customization job with everything that control knows of it."""

    backend: str
    plan: Plan
    inputs: Mapping[str, Any]
    """`model`, `data` and perhaps `validation`, `teacher`: snapshots of the filesets they were made from."""
    model: Ref
    output: Ref
    result: Outcome
    secrets: Sequence[Sequence[str]]
    """Variable and `workspace/name` of each secret that its processes get."""
    needs: Mapping[str, Any]
    status_details: Mapping[str, Any]
    request_id: str
    """Of the request that submitted it; "" when nobody knows."""

    @property
    def snapshots(self) -> dict[str, Snapshot]:
        """The inputs, read back."""
        return {name: Snapshot.of_json(stored) for name, stored in self.inputs.items()}


@dataclass(frozen=True, slots=True)
class Discard:
    """A deleted job of which processes and a directory may be left."""

    id: str
    phase: Phase
    attempt: int
    keeper: Mapping[str, Any] | None
    steps: Sequence[str]


class Jobs(Named):
    """Jobs of all kinds; `in_phase` and its neighbours are about customization jobs."""

    table = jobs
    kind = "platform-job"
    missing = "Job '{name}' not found in workspace '{workspace}'."
    filterable = {
        "status": lambda op, value: listed_status(jobs.c.status)(op, value),
        "source": lambda op, value: _source(op, value),
        "backend": jobs.c.backend,
        "custom_fields": jobs.c.custom_fields,
    }
    twin = (
        "Job '{name}' already exists in workspace '{workspace}'. "
        "Choose a different job name or delete the existing job before creating a new one."
    )

    @cached_property
    def steps(self) -> JobSteps:
        """Their steps."""
        return JobSteps(self.connection)

    @cached_property
    def metrics(self) -> Metrics:
        """Their series."""
        return Metrics(self.connection)

    @cached_property
    def deliveries(self) -> Deliveries:
        """What webhooks are owed: every change of a status owes them something."""
        return Deliveries(self.connection)

    def create(self, ref: Ref, *, spec_digest: str, **values: Any) -> RowMapping:
        """A new job in phase waiting, without steps; Conflict says whether the twin was asked for the same."""
        self.refuse_twin(ref, spec_digest)
        row = self.insert(
            ref.workspace,
            ref.name,
            spec_digest=spec_digest,
            status=JobStatus.CREATED,
            phase=Phase.WAITING,
            attempt_id=new_id("platform-job-attempt"),
            attempt=1,
            attempt_step=0,
            events_offset=0,
            **values,
        )
        self.deliveries.owe(row["id"], JobStatus.CREATED, new=True)
        return row

    def refuse_twin(self, ref: Ref, spec_digest: str) -> None:
        """Conflict when there is a job of that name; says whether it was asked for with the same spec."""
        twin = self.find_row(ref.workspace, ref.name)
        if twin is not None:
            same = "with the same spec" if twin["spec_digest"] == spec_digest else "with another spec"
            raise Conflict(f"{self.twin.format(workspace=ref.workspace, name=ref.name)} It was submitted {same}.")

    # -- what the wire shows ---------------------------------------------------------------------------------------

    def get(self, workspace: str, name: str) -> Job:
        """The job as the jobs service shows it; NotFound without it."""
        row = self.row(workspace, name)
        return _job({**row, "status_details": self._details(row)})

    def get_customization(self, workspace: str, name: str, backend: str | None = None) -> CustomizationJob:
        """The job as the customization API shows it: its backend's route, or (None) the shorthand, if it is in that.

        NotFound without it, and for a job of another kind.
        """
        row = self.row(workspace, name)
        if row["backend"] == PLATFORM or backend not in (None, row["backend"]):
            raise NotFound(self.missing.format(workspace=workspace, name=name))
        shown = {**row, "status_details": self._details(row)}
        return _customization_job(shown, self.steps.of([row["id"]])[row["id"]], by_door=backend is None)

    def state(self, workspace: str, name: str, *, series: bool = True) -> JobState:
        """Status, steps and tasks, with or without the series; NotFound without the job."""
        row = self.row(workspace, name)
        steps = self.steps.of([row["id"]]).get(row["id"], [])
        details = self._details(row) if series else row["status_details"]
        return JobState.model_validate({**row, "status_details": details, "steps": steps})

    def series(self, workspace: str, name: str) -> dict[str, list[JsonObject]]:
        """Every point of every series; NotFound without the job."""
        return self.metrics.of(self.row(workspace, name)["id"])

    def page(self, workspace: str, asked: PageRequest) -> Page[Job]:
        """One page of a workspace's jobs; without their series, which one job's own answer has."""
        return self.page_of(workspace, asked, lambda rows: [_job({**row}) for row in rows])

    def page_customization(
        self, workspace: str, asked: PageRequest, backend: str | None = None
    ) -> Page[CustomizationJob]:
        """One page of a workspace's jobs of one backend, or (None) of all, in the shorthand if they are in that."""
        where = jobs.c.backend == backend if backend else jobs.c.source == SOURCE

        def read(rows: Sequence[RowMapping]) -> list[CustomizationJob]:
            steps = self.steps.of([row["id"] for row in rows])
            return [_customization_job({**row}, steps.get(row["id"], []), by_door=backend is None) for row in rows]

        return self.page_of(workspace, asked, read, where)

    # -- what control sees and moves -------------------------------------------------------------------------------

    def stored(self, ref: Ref) -> StoredJob:
        """The customization job by name; NotFound without it."""
        return _stored(self.row(ref.workspace, ref.name))

    def by_id(self, job_id: str) -> StoredJob:
        """The customization job of that id, which must exist."""
        return _stored(self.connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one())

    def platform(self, job_id: str) -> RowMapping:
        """What a platform job, which must exist, goes by: `platform_spec`, `status_details`."""
        query = select(jobs.c.platform_spec, jobs.c.status_details).where(jobs.c.id == job_id)
        return self.connection.execute(query).mappings().one()

    def is_platform(self, ref: Ref) -> bool:
        """Whether it is a platform job; NotFound without it."""
        return bool(self.row(ref.workspace, ref.name)["backend"] == PLATFORM)

    def followed(self, job_id: str) -> Active | None:
        """The same without what is large; None when it is gone."""
        row = self.connection.execute(select(*_ACTIVE).where(jobs.c.id == job_id)).mappings().one_or_none()
        return Active(**_followed(row)) if row else None

    def details(self, job_id: str) -> JsonObject:
        """Its status details, without the series."""
        found: JsonObject = self.connection.execute(
            select(jobs.c.status_details).where(jobs.c.id == job_id)
        ).scalar_one()
        return found

    def by_key(self, workspace: str, key: str) -> RowMapping | None:
        """The job that was submitted with this idempotency key."""
        query = select(jobs).where(jobs.c.workspace == workspace, jobs.c.idempotency_key == key)
        return self.connection.execute(query).mappings().one_or_none()

    def in_phase(self, *phases: Phase, limit: int = 1000) -> list[StoredJob]:
        """Customization jobs in these phases, oldest first."""
        query = select(jobs).where(jobs.c.phase.in_(phases), jobs.c.backend != PLATFORM)
        rows = self.connection.execute(query.order_by(jobs.c.created_at, jobs.c.id).limit(limit)).mappings()
        return [_stored(row) for row in rows]

    def active(self, *phases: Phase) -> list[Active]:
        """Customization jobs in these phases, oldest first, without what is large."""
        query = select(*_ACTIVE).where(jobs.c.phase.in_(phases), jobs.c.backend != PLATFORM)
        rows = self.connection.execute(query.order_by(jobs.c.created_at, jobs.c.id)).mappings()
        return [Active(**_followed(row)) for row in rows]

    def waiting(self, phase: Phase) -> list[Waiting]:
        """Customization jobs that wait in `phase`, oldest first."""
        columns = (jobs.c.id, jobs.c.workspace, jobs.c.priority, jobs.c.created_at, jobs.c.needs)
        query = select(*columns).where(jobs.c.phase == phase, jobs.c.backend != PLATFORM)
        return [
            Waiting(
                row.id, row.workspace, row.priority, row.created_at, row.needs["devices"], tuple(row.needs["named"])
            )
            for row in self.connection.execute(query.order_by(jobs.c.created_at, jobs.c.id))
        ]

    def count(self, phase: Phase) -> int:
        """How many customization jobs are in a phase."""
        where = (jobs.c.phase == phase, jobs.c.backend != PLATFORM)
        return self.connection.execute(select(func.count()).select_from(jobs).where(*where)).scalar_one()

    def making(self, output: Ref) -> str | None:
        """The name of the unfinished job that will make this output, or None."""
        query = select(jobs.c.name).where(jobs.c.output_ref == str(output), jobs.c.phase != Phase.DONE)
        return self.connection.execute(query).scalars().first()

    def move(self, job_id: str, to: Phase, status: JobStatus, *, allowed_from: Iterable[Phase], **values: Any) -> None:
        """The guarded move of a job: Conflict when it is in none of `allowed_from` any more."""
        sources = list(allowed_from)
        self.deliveries.owe(job_id, status, values.get("error_details"))
        statement = update(jobs).where(jobs.c.id == job_id, jobs.c.phase.in_(sources))
        moved = self.connection.execute(statement.values(phase=to, status=status, **values))
        if moved.rowcount != 1:
            raise Conflict(f"job {job_id} is not in {', '.join(sources)} any more, so it cannot go to {to}")

    def set(self, job_id: str, **values: Any) -> None:
        """Change columns other than a customization job's state: keeper, offset, ending; a platform job's status."""
        if "status" in values:
            self.deliveries.owe(job_id, values["status"], values.get("error_details"))
        self.connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))

    def merge_details(self, job_id: str, step: str | None, details: Mapping[str, Any]) -> None:
        """Merge `details` into the job's and, unless it is None, the step's, key by key."""
        if not details:
            return
        if step is not None:
            self.steps.merge_details(job_id, step, details)
        held = self.connection.execute(select(jobs.c.status_details).where(jobs.c.id == job_id)).scalar_one()
        self.connection.execute(update(jobs).where(jobs.c.id == job_id).values(status_details={**held, **details}))

    # -- the deleted -----------------------------------------------------------------------------------------------

    def discard(self, ref: Ref, steps: Sequence[str] = ()) -> None:
        """Take the job out, and its own secret; what is left of it on the machine is remembered until it is gone.

        NotFound without it.
        """
        row = self.delete(ref.workspace, ref.name)
        if own := (row["asked"] or {}).get(OWN_SECRET):
            self.connection.execute(delete(secrets).where(secrets.c.workspace == ref.workspace, secrets.c.name == own))
        kept = {key: row[key] for key in ("id", "phase", "attempt", "keeper")}
        self.connection.execute(insert(discards).values(**kept, steps=list(steps), created_at=now()))

    def discarded(self) -> list[Discard]:
        """Deleted jobs that may have left something."""
        rows = self.connection.execute(select(discards).order_by(discards.c.created_at)).mappings()
        return [
            Discard(row["id"], Phase(row["phase"]), row["attempt"], row["keeper"], tuple(row["steps"])) for row in rows
        ]

    def forget(self, job_id: str) -> None:
        """Nothing is left of a deleted job."""
        self.connection.execute(delete(discards).where(discards.c.id == job_id))

    def _details(self, row: RowMapping) -> JsonObject:
        series = self.metrics.of(row["id"], SHOWN_SERIES)
        shown = {"metrics": {name: thinned(points) for name, points in series.items()}} if series else {}
        return {**row["status_details"], **shown}


def _job(row: Mapping[str, Any]) -> Job:
    platform = row["platform_spec"]
    if platform is None:
        executor = {"provider": "cpu", "profile": "default"}
        platform = {"steps": [{"name": name, "executor": executor} for name in STEPS]}
    fileset = row["output_ref"] or f"job-fileset-{row['name']}"
    return Job.model_validate({**row, "platform_spec": platform, "fileset": fileset})


def _customization_job(row: Mapping[str, Any], steps: Sequence[Any], *, by_door: bool) -> CustomizationJob:
    spec = row["asked"] if by_door and row["door"] == SHORTHAND else row["spec"]
    return CustomizationJob.model_validate({**row, "spec": spec, "steps": steps})


def listed_status(column: ColumnElement[str]) -> Callable[[Op, Any], ColumnElement[bool]]:
    """A filter by one status or several, separated by commas; BadRequest for what is none: nothing would be found."""
    return lambda op, value: _listed(column, op, value)


def _listed(column: ColumnElement[str], op: Op, value: Any) -> ColumnElement[bool]:
    if op is Op.EQ and "," in str(value):
        op, value = Op.IN, str(value).split(",")
    for each in value if op in (Op.IN, Op.NIN) else [value] if op is Op.EQ else []:
        if each is not None and each not in list(JobStatus):
            raise BadRequest(f"filter: status '{each}' is none of {', '.join(JobStatus)}")
    return condition(Test("status", op, value), {"status": column})


def _source(op: Op, value: Any) -> ColumnElement[bool]:
    """What the job calls its source, or its dialect."""
    fields = {"source": jobs.c.source, "backend": jobs.c.backend}
    if op is Op.NIN:
        return not_(_source(Op.IN, value))
    if op is Op.EQ and value is not None:  # one index each, where the question is as simple as it mostly is
        column = "backend" if value in ("automodel", "unsloth", "rl") else "source"
        return condition(Test(column, op, value), fields)
    return or_(*(condition(Test(name, op, value), fields) for name in fields))


_ACTIVE = tuple(
    jobs.c[name]
    for name in (
        *("id", "workspace", "name", "status", "phase", "attempt", "attempt_step"),
        *("events_offset", "keeper", "ending"),
    )
)


def _followed(row: RowMapping) -> dict[str, Any]:
    return {
        "id": row["id"],
        "ref": Ref(row["workspace"], row["name"]),
        "status": JobStatus(row["status"]),
        "phase": Phase(row["phase"]),
        "attempt": row["attempt"],
        "attempt_step": row["attempt_step"],
        "events_offset": row["events_offset"],
        "keeper": row["keeper"],
        "ending": row["ending"],
    }


def _stored(row: RowMapping) -> StoredJob:
    return StoredJob(
        **_followed(row),
        backend=row["backend"],
        plan=Plan.model_validate(row["plan"]),
        inputs=row["inputs"],
        model=Ref.unchecked(row["model_ref"]),
        output=Ref.unchecked(row["output_ref"]),
        result=Outcome(**row["result"]),
        secrets=row["secrets"] or (),
        needs=row["needs"],
        status_details=row["status_details"],
        request_id=row["request_id"] or "",
    )
