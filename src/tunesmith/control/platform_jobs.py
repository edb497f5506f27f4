"""What may happen to platform jobs, whose steps somebody else defines: create, cancel, pause, resume, delete, and what
workers say of their steps and tasks.

Each verb moves the job's current step; `settle` then lets the job follow: contract 8.3. The stepper does what a status
asks for: it starts, stops and follows processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tunesmith.api.base import JsonObject, Page, PageRequest
from tunesmith.api.filesets import CreateFileset
from tunesmith.api.job_steps import CpuExecutor, PlatformSpec, StepSpec, SubprocessExecutor
from tunesmith.api.jobs import Job, JobStatus
from tunesmith.api.platform_jobs import (
    CreatePlatformJob,
    ExecutionProfile,
    JobStep,
    JobTask,
    StatusUpdate,
    StepInContext,
    SubprocessProfile,
    TaskUpdate,
)
from tunesmith.control import filesets
from tunesmith.control.request_id import REQUEST_ID
from tunesmith.control.submission import digest_of, made_with_key
from tunesmith.errors import Conflict, Forbidden, Invalid
from tunesmith.refs import JOB_NAME_LIMIT, Ref, check_name
from tunesmith.settings import Settings, variable_of
from tunesmith.store.database import Database, Tx
from tunesmith.store.ids import hexadecimal, slug
from tunesmith.store.jobs import PLATFORM, SOURCE, Phase
from tunesmith.store.platform_steps import WITH_PROCESS, PlatformStep

SETTING = variable_of("allow_subprocess_jobs")
PROFILE = "default"
GRACE_SECONDS: Final = 10
"""From SIGTERM to SIGKILL."""

_S = JobStatus
NEXT: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    _S.CREATED: frozenset({_S.PENDING, _S.ACTIVE, _S.CANCELLING, _S.CANCELLED, _S.PAUSING, _S.PAUSED, _S.ERROR}),
    _S.PENDING: frozenset(
        {_S.ACTIVE, _S.CANCELLING, _S.CANCELLED, _S.ERROR, _S.PAUSING, _S.PAUSED, _S.COMPLETED},
    ),
    _S.ACTIVE: frozenset({_S.COMPLETED, _S.ERROR, _S.CANCELLING, _S.CANCELLED, _S.PAUSING, _S.PAUSED}),
    _S.PAUSED: frozenset({_S.RESUMING, _S.ACTIVE, _S.CANCELLING}),
    _S.CANCELLING: frozenset({_S.CANCELLED, _S.ERROR}),
    _S.PAUSING: frozenset({_S.PAUSED, _S.ERROR}),
    _S.RESUMING: frozenset({_S.PENDING, _S.ACTIVE, _S.ERROR, _S.CANCELLING}),
    _S.COMPLETED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.ERROR: frozenset(),
}
"""Where a step may go from where, when a worker says so. The same status again is always lawful."""

KEPT_DETAILS: Final = frozenset(
    {"phase", "step", "checkpoint_step", "attempt", "pauses", "paused_because", "num_epochs", "warnings", "backend"}
)
"""Details of customization jobs that the platform reads back: nobody else writes them."""


class PlatformJobService:
    """Platform jobs, and the steps and tasks of jobs of all kinds."""

    def __init__(self, database: Database, settings: Settings, changed: Callable[[], None]) -> None:
        self.database = database
        self.settings = settings
        self._changed = changed
        """Called after a change, so that the stepper hears of it at once."""

    def profiles(self) -> list[ExecutionProfile]:
        """The ways in which steps are run here; none while such jobs are not allowed."""
        if not self.settings.allow_subprocess_jobs:
            return []
        config = SubprocessProfile(
            working_directory=str(self.settings.data_dir / "runs"),
            graceful_shutdown_timeout_seconds=GRACE_SECONDS,
            ttl_seconds_after_finished=self.settings.retention_days * 86400,
        )
        return [ExecutionProfile(provider="subprocess", profile=PROFILE, backend="subprocess", config=config)]

    async def create(self, workspace: str, asked: CreatePlatformJob, key: str | None = None) -> Job:
        """Check it and queue its first step; with an idempotency key that was used before, the job made then.

        Forbidden while the operator does not allow such jobs; Invalid and Conflict say what is wrong.
        """
        if not self.settings.allow_subprocess_jobs:
            raise Forbidden(
                "Platform jobs run commands of whoever submits them on this machine, so they are off by default; the "
                f"operator allows them with the setting allow_subprocess_jobs ({SETTING}=1)"
            )
        steps = [runnable(step).model_dump(mode="json") for step in asked.platform_spec.steps]
        job = await self.database.write(create, workspace, asked, {"steps": steps}, key, REQUEST_ID.get())
        self._changed()
        return job

    async def step(self, workspace: str, job: str, name: str) -> JobStep:
        """One step of any job; NotFound without it."""
        return await self.database.read(lambda tx: tx.platform_steps.get(Ref(workspace, job), name))

    async def steps(self, workspace: str, job: str, asked: PageRequest) -> Page[StepInContext]:
        """One page of the steps of a job, or of all (`-`)."""
        return await self.database.search(lambda tx: tx.platform_steps.page(workspace, job, asked))

    async def update_step(self, workspace: str, job: str, name: str, asked: StatusUpdate) -> JobStep:
        """What a worker says of its step; Conflict for a status that cannot follow."""
        step = await self.database.write(update_step, Ref(workspace, job), name, asked)
        self._changed()
        return step

    async def tasks(self, workspace: str, job: str, step: str) -> list[JobTask]:
        """The tasks of a step; NotFound without it."""
        return await self.database.read(lambda tx: tx.platform_steps.tasks(Ref(workspace, job), step))

    async def task(self, workspace: str, job: str, step: str, name: str) -> JobTask:
        """One task; NotFound without it."""
        return await self.database.read(lambda tx: tx.platform_steps.task(Ref(workspace, job), step, name))

    async def put_task(self, workspace: str, job: str, step: str, name: str, asked: TaskUpdate) -> JobTask:
        """What a worker says of a task, which is made if there is none of that name."""
        return await self.database.write(put_task, Ref(workspace, job), step, check_name(name, "task"), asked)

    async def merge_details(self, workspace: str, job: str, details: JsonObject) -> None:
        """Merge into the job's status details, key by key; NotFound without the job."""
        await self.database.write(merge_details, Ref(workspace, job), details)


# -- creation ----------------------------------------------------------------------------------------------------------


def runnable(step: StepSpec) -> StepSpec:
    """The step as it will run here: a cpu container becomes a process of its entrypoint and command.

    Invalid for an executor that there is no profile for, and for one without a command.
    """
    executor = step.executor
    if isinstance(executor, CpuExecutor) and executor.profile == PROFILE:
        command = [*executor.container.entrypoint, *executor.container.command]
        executor = SubprocessExecutor(provider="subprocess", profile=PROFILE, command=command)
        step = step.model_copy(update={"executor": executor})
    if not isinstance(executor, SubprocessExecutor) or executor.profile != PROFILE:
        raise Invalid(
            f"The execution profile '{executor.provider}/{executor.profile}' specified in step '{step.name}' does not "
            f"exist. There is subprocess/{PROFILE}, which also runs the commands of cpu/{PROFILE} containers."
        )
    if not executor.command or not executor.command[0]:
        raise Invalid(
            f"platform_spec.steps: step '{step.name}' has no command; executor.command names the program and its "
            "arguments (a cpu container: container.entrypoint and container.command)"
        )
    return step


def create(
    tx: Tx, workspace: str, asked: CreatePlatformJob, platform: JsonObject, key: str | None, request_id: str = ""
) -> Job:
    """One transaction: the job with its first step and its fileset, or the one that the key has made before."""
    digest = digest_of({"source": asked.source, "spec": asked.spec, "platform_spec": platform})
    if key and (made := made_with_key(tx, workspace, key, digest)):
        return tx.jobs.get(workspace, made["name"])
    ref = Ref(workspace, check_name(asked.name or auto_name(asked.source), limit=JOB_NAME_LIMIT))
    if asked.source == SOURCE:
        raise Invalid(f"source: '{SOURCE}' is what this platform calls its own training jobs; give another")
    check_secrets(tx, workspace, asked.platform_spec)
    row = tx.jobs.create(
        ref,
        spec_digest=digest,
        source=asked.source,
        backend=PLATFORM,
        spec=asked.spec,
        platform_spec=platform,
        description=asked.description,
        project=asked.project,
        status_details={},
        ownership=asked.ownership,
        custom_fields=asked.custom_fields,
        request_id=request_id,
        idempotency_key=key,
    )
    first = platform["steps"][0]
    tx.jobs.steps.add(row["id"], first["name"], JobStatus.CREATED, position=0, spec=first)
    tx.filesets.create(workspace, CreateFileset(name=fileset_of(ref), description=f"Files of job {ref.name}"))
    return tx.jobs.get(workspace, ref.name)


def auto_name(source: str) -> str:
    """`{source[:20]}-{8}`, with what a name may not hold replaced."""
    words = [word for word in slug(source).lower().replace("_", "-").split("-") if word]
    stem = "-".join(words)[:20].strip("-")
    return f"{stem if stem[:1].isalpha() else f'job-{stem}'.strip('-')}-{hexadecimal(8)}"


def fileset_of(job: Ref) -> str:
    """The name of the fileset that comes and goes with a platform job."""
    return f"job-fileset-{job.name}"


def secrets_of(workspace: str, step: Mapping[str, Any]) -> list[tuple[str, Ref]]:
    """Variable and secret of each that a stored step's environment names."""
    named = [each for each in step["environment"] or () if each["from_secret"]]
    field = "platform_spec.steps.environment.from_secret.name"
    return [(each["name"], Ref.parse(each["from_secret"]["name"], workspace, field)) for each in named]


def check_secrets(tx: Tx, workspace: str, spec: PlatformSpec) -> None:
    """Conflict when a secret is missing, as the wire has it."""
    for step in spec.steps:
        for variable, ref in secrets_of(workspace, step.model_dump(mode="json")):
            if tx.secrets.find_row(ref.workspace, ref.name) is None:
                raise Conflict(
                    "Unable to create job because one or more referenced secrets were not found or are not accessible. "
                    f"Step '{step.name}', environment {variable}: '{ref}' does not exist; create it with "
                    f"`tunesmith secrets create {ref.name}`"
                )


# -- what a user wants -------------------------------------------------------------------------------------------------


def cancel(tx: Tx, ref: Ref) -> None:
    """One transaction: done at once where no process runs, else `cancelling` until it is gone."""
    step, status = _current(tx, ref)
    if status.final or status == JobStatus.CANCELLING:
        return
    if status == JobStatus.PAUSING:
        raise Conflict(f"Cannot cancel job '{ref.name}' from its current state. Refresh the job status and try again.")
    _move(tx, step, JobStatus.CANCELLING if has_process(step) else JobStatus.CANCELLED)


def pause(tx: Tx, ref: Ref) -> None:
    """One transaction: paused at once where no process runs, else `pausing` until it is gone: it has no checkpoint."""
    step, status = _current(tx, ref)
    if status.final or status in (JobStatus.PAUSING, JobStatus.PAUSED):
        return
    if status == JobStatus.CANCELLING:
        raise Conflict(f"Cannot pause job '{ref.name}' from its current state: it is being cancelled.")
    _move(tx, step, JobStatus.PAUSING if has_process(step) else JobStatus.PAUSED)


def resume(tx: Tx, ref: Ref) -> None:
    """One transaction: the step that was stopped waits for its turn to start from its beginning."""
    step, status = _current(tx, ref)
    if status == JobStatus.PAUSING:
        raise Conflict(f"Job '{ref.name}' is still pausing; resume it when it is paused.")
    if status == JobStatus.PAUSED:
        _move(tx, step, JobStatus.RESUMING)


def delete(tx: Tx, ref: Ref) -> None:
    """One transaction: the job is gone, with its fileset, and its name free; the stepper ends what runs."""
    steps = tx.platform_steps.of(tx.jobs.row(ref.workspace, ref.name)["id"])
    if tx.filesets.find_row(ref.workspace, fileset_of(ref)) is not None:
        filesets.delete(tx, Ref(ref.workspace, fileset_of(ref)))
    tx.jobs.discard(ref, [step.name for step in steps if has_process(step)])


# -- what workers say --------------------------------------------------------------------------------------------------


def update_step(tx: Tx, job: Ref, name: str, asked: StatusUpdate) -> JobStep:
    """One transaction: the step's status and details, and the job follows."""
    step = _workers(tx, job, name)
    if asked.status not in (step.status, *NEXT[step.status]):
        raise Conflict(
            f"Cannot update job step '{name}' to status '{asked.status}' from its current state. It is {step.status}; "
            f"what may follow is {', '.join(sorted(NEXT[step.status])) or 'nothing'}."
        )
    error = {"error_details": asked.error_details} if asked.error_details is not None else {}
    tx.platform_steps.move(step, asked.status, **error)
    tx.jobs.steps.merge_details(step.job_id, name, asked.status_details or {})
    settle(tx, step.job_id, asked.status_details)
    return tx.platform_steps.get(job, name)


def put_task(tx: Tx, job: Ref, step_name: str, name: str, asked: TaskUpdate) -> JobTask:
    """One transaction: the task and its details, which are the job's too."""
    step = _workers(tx, job, step_name)
    given = {key: value for key, value in asked.model_dump(exclude_unset=True).items() if value is not None}
    tx.platform_steps.put_task(step.id, name, **given)
    tx.platform_steps.set(step.id)  # it has said something: see staleness_timeout_seconds
    tx.jobs.merge_details(step.job_id, None, asked.status_details or {})
    return tx.platform_steps.task(job, step_name, name)


def merge_details(tx: Tx, ref: Ref, details: JsonObject) -> None:
    """One transaction: NotFound without the job; Conflict for a detail that the platform itself goes by."""
    row = tx.jobs.row(ref.workspace, ref.name)
    if row["backend"] != PLATFORM and (kept := sorted(KEPT_DETAILS & details.keys())):
        raise Conflict(f"status_details.{kept[0]} of job '{ref.name}' is written by the platform; choose another key")
    tx.jobs.merge_details(row["id"], None, details)


def lose(tx: Tx, step: PlatformStep, error: JsonObject) -> None:
    """One transaction: the step's run is not here any more; unless it is over already, it ends with this error."""
    if step.status.final:
        tx.platform_steps.set(step.id, keeper=None)
    else:
        tx.platform_steps.move(step, JobStatus.ERROR, keeper=None, error_details=error)
    settle(tx, step.job_id)


# -- below -------------------------------------------------------------------------------------------------------------


def settle(tx: Tx, job_id: str, details: Mapping[str, Any] | None = None) -> None:
    """The job follows its current step; when that one is completed, the next begins to exist."""
    steps, job = tx.platform_steps.of(job_id), tx.jobs.platform(job_id)
    specs, current = job["platform_spec"]["steps"], steps[-1]
    status, following = current.status, current.position + 1
    if status == JobStatus.COMPLETED and following < len(specs):
        spec = specs[following]
        tx.jobs.steps.add(job_id, spec["name"], JobStatus.CREATED, position=following, spec=spec)
        status = JobStatus.ACTIVE
    elif status in (JobStatus.CREATED, JobStatus.PENDING) and current.position > 0:
        status = JobStatus.ACTIVE
    changes: dict[str, Any] = {"status": status, "phase": _phase(status, any(step.keeper for step in steps))}
    if status == JobStatus.ERROR:
        changes["error_details"] = tx.jobs.steps.error(current.id)
    if details:
        changes["status_details"] = {**job["status_details"], **details}
    tx.jobs.set(job_id, **changes)


def _phase(status: JobStatus, process: bool) -> Phase:
    if status == JobStatus.CREATED:
        return Phase.WAITING
    if process or not (status.final or status == JobStatus.PAUSED):
        return Phase.RUNNING
    return Phase.DONE if status.final else Phase.PAUSED


def _current(tx: Tx, ref: Ref) -> tuple[PlatformStep, JobStatus]:
    """The job's last step so far, and the job's status; NotFound without the job."""
    row = tx.jobs.row(ref.workspace, ref.name)
    return tx.platform_steps.of(row["id"])[-1], JobStatus(row["status"])


def has_process(step: PlatformStep) -> bool:
    """Whether a step has a process, or is about to."""
    return step.keeper is not None or step.status in WITH_PROCESS


def _move(tx: Tx, step: PlatformStep, to: JobStatus) -> None:
    tx.platform_steps.move(step, to)
    settle(tx, step.job_id)


def _workers(tx: Tx, job: Ref, name: str) -> PlatformStep:
    """A step that workers report on; NotFound without it, Conflict for one that the platform moves by itself."""
    row = tx.platform_steps.row(job, name)
    if row["backend"] != PLATFORM:
        raise Conflict(
            f"Step '{name}' belongs to the {row['backend']} job '{job.name}', whose steps the platform moves by itself"
        )
    step = tx.platform_steps.find(row["id"])
    assert step is not None
    return step
