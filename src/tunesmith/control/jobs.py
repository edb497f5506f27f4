"""What may happen to jobs: submit, retrieve, list, cancel, read the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.jobs import (
    AutomodelJob,
    CreateAutomodelJob,
    Job,
    JobState,
    JobStatus,
    LogPage,
    LogRequest,
)
from tunesmith.control import logs
from tunesmith.control.checkpoints import read_facts, refuse_without_tokenizer
from tunesmith.control.contents import Contents
from tunesmith.control.request_id import REQUEST_ID
from tunesmith.errors import Conflict, Invalid, NotFound
from tunesmith.planning.automodel import Lowered, lower
from tunesmith.refs import JOB_NAME_LIMIT, Ref, check_name
from tunesmith.spec.automodel import AutomodelJobInput, AutomodelJobOutput, OutputResponse
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database, Tx
from tunesmith.store.filesets import Snapshot
from tunesmith.store.ids import hexadecimal, new_id, slug
from tunesmith.store.jobs import Phase

WITHOUT_PROCESS = (Phase.WAITING, Phase.QUEUED)
WITH_PROCESS = (Phase.PREPARING, Phase.TRAINING)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a job reads: the filesets it named, as they are at submission."""

    model: Ref
    base: Snapshot
    data: Snapshot
    validation: Snapshot | None

    def digests(self) -> set[str]:
        """Of every blob among them."""
        snapshots = (self.base, self.data, self.validation)
        return {file.digest for each in snapshots if each for file in each.files if file.digest}


class JobService:
    """Customization jobs."""

    def __init__(self, database: Database, contents: Contents, data_dir: DataDir, changed: Callable[[], None]) -> None:
        self.database = database
        self.contents = contents
        self.data_dir = data_dir
        self._changed = changed
        """Called after a change, so that the loops hear of it at once."""

    async def submit(self, workspace: str, asked: CreateAutomodelJob) -> AutomodelJob:
        """Check everything that can be checked without counting tokens, and queue the job.

        Invalid, NotBuilt or Conflict name the field, the value, the rule and the way out; then nothing is stored.
        """
        name = check_name(asked.name or f"automodel-{hexadecimal(12)}", limit=JOB_NAME_LIMIT)
        inputs = await self.database.read(resolve, workspace, asked.spec)
        if await self._list_again(inputs):
            inputs = await self.database.read(resolve, workspace, asked.spec)
        with self.contents.blobs.hold(inputs.digests()):
            facts = await read_facts(inputs.base, self.contents, (inputs.model.name,))
            refuse_without_tokenizer(inputs.base)
            job_id, base = new_id("platform-job"), inputs.base
            lowered = lower(asked.spec, facts, run=job_id, model=str(inputs.model), chat_template=base.chat_template)
            job = await self.database.write(
                insert, Ref(workspace, name), job_id, asked, inputs, lowered, REQUEST_ID.get()
            )
        self._changed()
        return job

    async def _list_again(self, inputs: Inputs) -> bool:
        """Look what storages without versions hold now; whether that was news."""
        read = [inputs.base, inputs.data, *([inputs.validation] if inputs.validation else [])]
        return any([await self.contents.refresh(Ref.unchecked(snapshot.fileset)) for snapshot in read])

    async def get(self, workspace: str, name: str) -> Job:
        """The job as the jobs service shows it; NotFound without it."""
        return await self.database.read(lambda tx: tx.jobs.get(workspace, name))

    async def get_automodel(self, workspace: str, name: str) -> AutomodelJob:
        """The job as the customization API shows it; NotFound without it."""
        return await self.database.read(lambda tx: tx.jobs.get_automodel(workspace, name))

    async def state(self, workspace: str, name: str) -> JobState:
        """Status, steps and tasks; NotFound without the job."""
        return await self.database.read(lambda tx: tx.jobs.state(workspace, name))

    async def page(self, workspace: str, asked: PageRequest) -> Page[Job]:
        """One page of a workspace's jobs."""
        return await self.database.read(lambda tx: tx.jobs.page(workspace, asked))

    async def page_automodel(self, workspace: str, asked: PageRequest) -> Page[AutomodelJob]:
        """One page of a workspace's automodel jobs."""
        return await self.database.read(lambda tx: tx.jobs.page_automodel(workspace, asked))

    async def cancel(self, workspace: str, name: str) -> None:
        """Ask for the end: at once where no process runs, else at the next step. A finished job stays as it is."""
        await self.database.write(cancel, Ref(workspace, name))
        self._changed()

    async def logs(self, workspace: str, name: str, asked: LogRequest) -> LogPage:
        """Some lines of what the job's processes said; NotFound without the job."""
        job = await self.database.read(lambda tx: tx.jobs.stored(Ref(workspace, name)))
        task_of = {step.name: step.tasks[0].name for step in (await self.state(workspace, name)).steps}
        return await asyncio.to_thread(logs.page, self.data_dir.run(job.id), job, task_of, asked)


def resolve(tx: Tx, workspace: str, spec: AutomodelJobInput) -> Inputs:
    """Look up what the spec names; Invalid names the field whose target is missing or empty."""
    model = Ref.parse(spec.model, workspace, "spec.model")
    try:
        entity = tx.models.get(model.workspace, model.name)
    except NotFound:
        raise Invalid(f"spec.model: Model entity not found: '{model}'. Verify the model entity exists.") from None
    if entity.fileset is None:
        raise Invalid(f"spec.model: model '{model}' has no fileset with a checkpoint; give it one first")
    return Inputs(
        model=model,
        base=_snapshot(tx, entity.fileset, model.workspace, f"spec.model: model {model}"),
        data=_with_files(_snapshot(tx, spec.dataset.training, workspace, "spec.dataset.training")),
        validation=_with_files(_snapshot(tx, spec.dataset.validation, workspace, "spec.dataset.validation"))
        if spec.dataset.validation
        else None,
    )


def insert(
    tx: Tx, ref: Ref, job_id: str, asked: CreateAutomodelJob, inputs: Inputs, lowered: Lowered, request_id: str = ""
) -> AutomodelJob:
    """One transaction: is the output's name free, then the job with its first step."""
    spec, output = _canonical(asked.spec, inputs)
    refuse_taken_output(tx, output)
    snapshots = {"model": inputs.base.as_json(), "data": inputs.data.as_json()}
    if inputs.validation:
        snapshots["validation"] = inputs.validation.as_json()
    tx.jobs.create(
        ref,
        id=job_id,
        description=asked.description,
        project=asked.project,
        backend="automodel",
        spec=spec.model_dump(mode="json"),
        plan=lowered.plan.model_dump(mode="json"),
        inputs=snapshots,
        model_ref=str(inputs.model),
        output_ref=str(output),
        status_details={"phase": Phase.WAITING, "warnings": list(lowered.warnings)},
        ownership=asked.ownership,
        custom_fields=asked.custom_fields,
        request_id=request_id,
    )
    return tx.jobs.get_automodel(ref.workspace, ref.name)


def refuse_taken_output(tx: Tx, output: Ref) -> None:
    """Conflict when an adapter, model or fileset has the name, or an unfinished job will make it."""
    where, name = output.workspace, output.name
    for noun, repository in (("An adapter", tx.adapters), ("A model", tx.models), ("A fileset", tx.filesets)):
        if repository.find_row(where, name) is not None:
            raise Conflict(f"spec.output.name: {noun} '{output}' exists; choose another name")
    if other := tx.jobs.making(output):
        raise Conflict(f"spec.output.name: job '{other}' is making '{output}'; choose another name or cancel that job")


def cancel(tx: Tx, ref: Ref) -> None:
    """One transaction: done at once where no process runs, else `cancelling` until it is gone."""
    job = tx.jobs.stored(ref)
    if job.status.final or job.status == JobStatus.CANCELLING:
        return
    if job.phase in WITHOUT_PROCESS:
        tx.jobs.move(job.id, Phase.DONE, JobStatus.CANCELLED, allowed_from=WITHOUT_PROCESS)
        tx.jobs.end_open_steps(job.id, JobStatus.CANCELLED)
        tx.jobs.merge_details(job.id, None, {"phase": JobStatus.CANCELLED})
    else:
        tx.jobs.move(job.id, job.phase, JobStatus.CANCELLING, allowed_from=WITH_PROCESS)


def _canonical(asked: AutomodelJobInput, inputs: Inputs) -> tuple[AutomodelJobOutput, Ref]:
    """The spec as it runs, and what it makes: an adapter in the base model's workspace."""
    if asked.output:
        name = check_name(asked.output.name, "spec.output.name")
        description = asked.output.description
    else:
        data = inputs.data.fileset.partition("/")[2]
        name = f"{slug(f'{inputs.model.name}-{data}').strip('-').lower()}-{hexadecimal(12)}"
        name, description = check_name(name, "spec.output.name"), None
    response = OutputResponse(name=name, type="adapter", fileset=name, description=description)
    given = asked.model_dump(exclude={"output"})
    return AutomodelJobOutput.model_validate({**given, "output": response}), Ref(inputs.model.workspace, name)


def _snapshot(tx: Tx, text: str, workspace: str, field: str) -> Snapshot:
    ref = Ref.fileset(text, workspace, field)
    try:
        return tx.filesets.snapshot(ref)
    except NotFound:
        noun = "Dataset fileset" if "dataset" in field else "Fileset"
        where = f"'{ref.name}' not found in workspace '{ref.workspace}'"
        raise Invalid(f"{field}: {noun} {where}. Verify that it exists.") from None


def _with_files(snapshot: Snapshot) -> Snapshot:
    if not snapshot.files:
        raise Invalid(f"spec.dataset: fileset '{snapshot.fileset}' has no files; upload a .jsonl file to it first")
    return snapshot
