"""From a spec to a job in the queue: everything that can be checked without counting tokens is checked here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from sqlalchemy import RowMapping

from tunesmith.api.base import JsonObject
from tunesmith.api.jobs import STEPS, CreateJob, CustomizationJob, JobStatus
from tunesmith.control.checkpoints import read_facts, refuse_without_tokenizer
from tunesmith.control.contents import Contents
from tunesmith.control.devices import Devices
from tunesmith.control.request_id import REQUEST_ID
from tunesmith.errors import Conflict, Invalid, NotBuilt, NotFound
from tunesmith.handoff.crash import crash_at
from tunesmith.handoff.plan import Plan, TrackersPart
from tunesmith.planning.dialects import DIALECTS, Dialect, Lowered, Result
from tunesmith.planning.disk import disk_need
from tunesmith.planning.facts import ModelFacts
from tunesmith.refs import JOB_NAME_LIMIT, Ref, check_name
from tunesmith.spec.base import DeploymentParams, Spec
from tunesmith.store.database import Database, Tx
from tunesmith.store.filesets import MARK, Snapshot
from tunesmith.store.ids import hexadecimal, new_id, slug
from tunesmith.store.jobs import SOURCE, Outcome, Phase

PRIORITY_LIMIT = 10**6
CHECKPOINTS_REMEMBERED = 32


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a job reads: the filesets it named, as they are at submission."""

    model: Ref
    base: Snapshot
    data: Snapshot
    validation: Snapshot | None = None
    teacher_model: Ref | None = None
    teacher: Snapshot | None = None

    def snapshots(self) -> dict[str, Snapshot]:
        """By what they are for."""
        named = {"model": self.base, "data": self.data, "validation": self.validation, "teacher": self.teacher}
        return {name: snapshot for name, snapshot in named.items() if snapshot}

    def digests(self) -> set[str]:
        """Of every blob among them."""
        return {file.digest for each in self.snapshots().values() for file in each.files if file.digest}


@dataclass(frozen=True, slots=True)
class Asked:
    """A job as somebody asked for it, through whichever door."""

    backend: str
    envelope: CreateJob
    spec: Spec
    door: str | None = None
    """None = the backend's own route."""
    door_spec: JsonObject | None = None
    """The spec as the door shows it."""
    idempotency_key: str | None = None

    @property
    def dialect(self) -> Dialect:
        """Of its backend."""
        return DIALECTS[self.backend]

    @property
    def digest(self) -> str:
        """Equal for what asks for the same."""
        return digest_of({"backend": self.backend, "spec": self.spec.model_dump(mode="json")})

    def shown(self, output: str) -> JsonObject | None:
        """The spec as the door shows it, with the name that the result gets; None = as the backend does."""
        if self.door_spec is None:
            return None
        return {**self.door_spec, "output": {**(self.door_spec.get("output") or {}), "name": output}}


class Submission:
    """Takes jobs in."""

    def __init__(self, database: Database, contents: Contents, devices: Devices, changed: Callable[[], None]) -> None:
        self.database = database
        self.contents = contents
        self.devices = devices
        self._changed = changed
        self._known: dict[tuple[str, str], ModelFacts] = {}
        """By digest of the checkpoint and name of the model, the oldest first."""

    async def submit(self, workspace: str, asked: Asked) -> CustomizationJob:
        """Check it and queue it; with an idempotency key that was used before, the job that was made then.

        Invalid, NotBuilt, Conflict or DiskFull name the field, the value, the rule and the way out; then nothing is
        stored.
        """
        if asked.idempotency_key and (made := await self.database.read(made_before, workspace, asked)):
            return made
        dialect, spec = asked.dialect, asked.spec
        ref = Ref(
            workspace, check_name(asked.envelope.name or f"{asked.backend}-{hexadecimal(12)}", limit=JOB_NAME_LIMIT)
        )
        inputs = await self.database.read(resolve, workspace, dialect, spec)
        if await self._list_again(inputs):
            inputs = await self.database.read(resolve, workspace, dialect, spec)
        with self.contents.blobs.hold(inputs.digests()):
            facts = await self._facts(inputs.base, inputs.model)
            refuse_without_tokenizer(inputs.base)
            self._refuse_devices(dialect, spec)
            job_id = new_id("platform-job")
            try:
                lowered = await self._lower(ref, job_id, asked, inputs, facts)
            except NotBuilt:
                await self.database.read(check, ref, asked, inputs)  # every other rule is said before that one
                raise
            refuse_missing_trackers(lowered.plan.trackers)
            self._check_disk(lowered.plan, facts, inputs)
            crash_at("submit-before-commit")
            job = await self.database.write(insert, ref, job_id, asked, inputs, lowered, REQUEST_ID.get())
            crash_at("submit-after-commit")
        self._changed()
        return job

    async def _lower(self, ref: Ref, job_id: str, asked: Asked, inputs: Inputs, facts: ModelFacts) -> Lowered:
        """The plan; Invalid and NotBuilt as the dialect has them, NotBuilt too for weights that no engine loads."""
        teacher = None
        if inputs.teacher and inputs.teacher_model:
            teacher = await self._facts(inputs.teacher, inputs.teacher_model)
        lowered = asked.dialect.lower(
            asked.spec,
            facts,
            run=job_id,
            model=str(inputs.model),
            name=ref.name,
            chat_template=inputs.base.chat_template,
            teacher=teacher,
            devices_here=len(self.devices.names),
        )
        if not any(file.path.endswith(".safetensors") for file in inputs.base.files):
            raise NotBuilt(
                f"model: fileset {inputs.base.fileset} holds pickled weights (pytorch_model.bin); training on those "
                "is not built yet; save them as safetensors (from_pretrained(...).save_pretrained(...)) and upload that"
            )
        return lowered

    def _refuse_devices(self, dialect: Dialect, spec: Spec) -> None:
        """Invalid for devices that this machine does not have."""
        needs, here = dialect.needs(spec), self.devices
        if needs.named and not here.have_gpus:
            raise Invalid(
                f"spec.hardware.gpus: '{','.join(needs.named)}' names GPUs, and this machine has none; leave it null"
            )
        indices = [name.partition(":")[2] for name in here.names]
        if missing := [name for name in needs.named if name not in indices]:
            raise Invalid(f"spec.hardware.gpus: no GPU {', '.join(missing)} here; there are {', '.join(indices)}")

    def _check_disk(self, plan: Plan, facts: ModelFacts, inputs: Inputs) -> None:
        """DiskFull when the job would not have the room that it needs, what is here already not counted."""
        data = sum(size_of(each) for name, each in inputs.snapshots().items() if name not in ("model", "teacher"))
        base = size_of(inputs.base) + (size_of(inputs.teacher) if inputs.teacher else 0)
        here = sum(file.size for each in inputs.snapshots().values() for file in each.files if file.digest)
        need = disk_need(plan, facts, base=base, data=data, here=here)
        self.contents.blobs.check_room(need.missing)

    async def _facts(self, snapshot: Snapshot, model: Ref) -> ModelFacts:
        """What the checkpoint says about itself. Read once: the same bytes say the same."""
        if not all(file.digest for file in snapshot.files):
            return await read_facts(snapshot, self.contents, (model.name,))
        key = (snapshot.digest, model.name)
        if key not in self._known:
            while len(self._known) >= CHECKPOINTS_REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[key] = await read_facts(snapshot, self.contents, (model.name,))
        return self._known[key]

    async def _list_again(self, inputs: Inputs) -> bool:
        """Look what storages without versions hold now; whether that was news."""
        remote = [each for each in inputs.snapshots().values() if each.storage is not None]
        return any([await self.contents.refresh(Ref.unchecked(snapshot.fileset)) for snapshot in remote])


def made_before(tx: Tx, workspace: str, asked: Asked) -> CustomizationJob | None:
    """The job of an idempotency key; Conflict when another spec had that key."""
    assert asked.idempotency_key
    row = made_with_key(tx, workspace, asked.idempotency_key, asked.digest)
    if row is None:
        return None
    return tx.jobs.get_customization(workspace, row["name"], None if asked.door else asked.backend)


def made_with_key(tx: Tx, workspace: str, key: str, digest: str) -> RowMapping | None:
    """The job, of whatever kind, that an idempotency key has made; Conflict when another spec had that key."""
    row = tx.jobs.by_key(workspace, key)
    if row is not None and row["spec_digest"] != digest:
        raise Conflict(
            f"Idempotency-Key: '{key[:80]}' was used for job '{row['name']}' with another spec; "
            "send a new key for a new job"
        )
    return row


def resolve(tx: Tx, workspace: str, dialect: Dialect, spec: Spec) -> Inputs:
    """Look up what the spec names; Invalid names the field whose target is missing or empty."""
    named = dialect.named(spec)
    model, base = _checkpoint(tx, workspace, *named.model)
    teacher_model, teacher = _checkpoint(tx, workspace, *named.teacher) if named.teacher else (None, None)
    return Inputs(
        model=model,
        base=base,
        data=_rows(tx, workspace, *named.training),
        validation=_rows(tx, workspace, *named.validation) if named.validation else None,
        teacher_model=teacher_model,
        teacher=teacher,
    )


@dataclass(frozen=True, slots=True)
class Checked:
    """What the names in a spec stand for."""

    result: Result
    output: Ref
    deployment: str | DeploymentParams | None
    secrets: list[tuple[str, str]]
    priority: int


def check(tx: Tx, ref: Ref, asked: Asked, inputs: Inputs) -> Checked:
    """Is everything that the job names there, and are its own name and its output's free; Conflict or Invalid if not.

    Part of `insert`, and asked before a spec is refused as not built yet.
    """
    dialect, spec = asked.dialect, asked.spec
    tx.jobs.refuse_twin(ref, asked.digest)
    result, deployment = dialect.result(spec), dialect.deployment(spec)
    output = _output(result, ref, inputs)
    refuse_taken_output(tx, output, result, inputs.model)
    check_deployment(tx, ref.workspace, deployment, result)
    tx.jobs.checked_project(ref.workspace, asked.envelope.project)
    return Checked(
        result,
        output,
        deployment,
        resolve_secrets(tx, ref.workspace, dialect, spec),
        priority_of(asked.envelope.custom_fields),
    )


def insert(
    tx: Tx, ref: Ref, job_id: str, asked: Asked, inputs: Inputs, lowered: Lowered, request_id: str = ""
) -> CustomizationJob:
    """One transaction: `check`, then the job with its first step."""
    dialect, spec = asked.dialect, asked.spec
    if asked.idempotency_key and (made := made_before(tx, ref.workspace, asked)):
        return made  # by a twin of this request, a moment ago
    found = check(tx, ref, asked, inputs)
    result, deployment, needs, plan = found.result, found.deployment, dialect.needs(spec), lowered.plan
    rank, alpha = plan.adapter.saved_rank_and_alpha if plan.adapter else (None, None)
    outcome = Outcome(
        kind=result.kind,
        finetuning_type=result.finetuning_type,
        description=result.description,
        rank=rank,
        alpha=alpha,
        deployment=deployment.model_dump(mode="json") if isinstance(deployment, DeploymentParams) else deployment,
    )
    row = tx.jobs.create(
        ref,
        id=job_id,
        source=SOURCE,
        backend=asked.backend,
        door=asked.door,
        asked=asked.shown(found.output.name),
        spec=dialect.canonical(spec, found.output.name).model_dump(mode="json"),
        spec_digest=asked.digest,
        plan=plan.model_dump(mode="json"),
        inputs={name: snapshot.as_json() for name, snapshot in inputs.snapshots().items()},
        model_ref=str(inputs.model),
        output_ref=str(found.output),
        result=asdict(outcome),
        secrets=found.secrets,
        needs={"devices": needs.devices, "nodes": needs.nodes, "named": list(needs.named), "profile": needs.profile},
        priority=found.priority,
        description=asked.envelope.description,
        project=asked.envelope.project,
        status_details={"phase": Phase.WAITING, "backend": asked.backend, "warnings": list(lowered.warnings)},
        ownership=asked.envelope.ownership,
        custom_fields=asked.envelope.custom_fields,
        request_id=request_id,
        idempotency_key=asked.idempotency_key,
    )
    tx.jobs.steps.add(row["id"], STEPS[0], JobStatus.CREATED)
    return tx.jobs.get_customization(ref.workspace, ref.name, None if asked.door else asked.backend)


def refuse_taken_output(tx: Tx, output: Ref, result: Result, base: Ref) -> None:
    """Conflict when the name is taken by what no job made, or an unfinished job will make it.

    An adapter or model that a job made on the same base gets a new version instead.
    """
    where, name = output.workspace, output.name
    if other := tx.jobs.making(output):
        raise Conflict(f"spec.output.name: job '{other}' is making '{output}'; choose another name or cancel that job")
    adapter, model = tx.adapters.find_row(where, name), tx.models.find_row(where, name)
    fileset = tx.filesets.find_row(where, name)
    made_by_job = fileset is not None and bool((fileset["custom_fields"] or {}).get(MARK))
    held = adapter if result.kind == "adapter" else model
    if held is not None and made_by_job:
        on = held["model_ref"] if result.kind == "adapter" else held["base_model"]
        if on == str(base):
            return
        raise Conflict(f"spec.output.name: '{output}' was made from {on}, not from {base}; choose another name")
    for noun, found in (("An adapter", adapter), ("A model", model), ("A fileset", fileset)):
        if found is not None:
            raise Conflict(f"spec.output.name: {noun} '{output}' exists; choose another name")


OF_CONTAINERS = frozenset({"additional_envs", "disk_size", "image_name", "image_tag", "tool_call_config"})
"""Fields of deployment parameters that only an engine in a container of its own would read."""


def check_deployment(tx: Tx, workspace: str, deployment: str | DeploymentParams | None, result: Result) -> None:
    """Invalid for a deployment that could not follow this job."""
    if deployment is None:
        return
    if isinstance(deployment, str):
        if result.kind == "model":
            raise Invalid(
                f"spec.deployment_config: '{deployment}' is a config of a model that exists, and this job makes a new "
                "one; give parameters instead, as in {gpu: 1}"
            )
        named = Ref.parse(deployment, workspace, "spec.deployment_config")
        try:
            config = tx.deployments.get_config(named.workspace, named.name)
        except NotFound:
            raise Invalid(
                f"spec.deployment_config: deployment_config references '{named.name}' which does not exist in "
                f"workspace '{named.workspace}'."
            ) from None
        serves = config.model_spec.lora_enabled
    else:
        serves = deployment.lora_enabled
        if deployment.gpu > 1:
            raise Invalid(f"spec.deployment_config.gpu: {deployment.gpu}; the embedded engine serves on at most 1")
        for field in sorted(OF_CONTAINERS):
            if getattr(deployment, field) is not None:
                raise NotBuilt(f"spec.deployment_config.{field}: the embedded engine has no use for it; leave it out")
    if result.kind == "adapter" and not serves:
        raise Invalid("spec.deployment_config.lora_enabled must be true (or omitted) when training a LoRA adapter.")


def resolve_secrets(tx: Tx, workspace: str, dialect: Dialect, spec: Spec) -> list[tuple[str, str]]:
    """Variable and secret of each that the job's processes get; Conflict when one is missing, as the wire has it."""
    found = []
    for use in dialect.secrets(spec):
        ref = Ref.parse(use.reference, workspace, use.field)
        if tx.secrets.find_row(ref.workspace, ref.name) is None:
            raise Conflict(
                "Unable to create job because one or more referenced secrets were not found or are not accessible. "
                f"{use.field}: '{ref}' does not exist; create it with `tunesmith secrets create {ref.name}`"
            )
        found.append((use.variable, str(ref)))
    return found


def refuse_missing_trackers(asked: TrackersPart) -> None:
    """Invalid for a tracker whose library is not installed where the jobs run."""
    for name, package in (("wandb", "wandb"), ("mlflow", "mlflow-skinny")):
        if getattr(asked, name) is not None and find_spec(name) is None:
            raise Invalid(
                f"spec.integrations.{name}: the package {package} is not installed beside this server; an operator "
                "adds it with `pip install 'tunesmith[trackers]'`, or leave the block out"
            )


def priority_of(custom_fields: JsonObject | None) -> int:
    """Invalid for a priority that is no whole number, or too large a one."""
    given = (custom_fields or {}).get("priority", 0)
    if isinstance(given, bool) or not isinstance(given, int) or abs(given) > PRIORITY_LIMIT:
        raise Invalid(
            f"custom_fields.priority: {str(given)[:40]!r} must be a whole number from -{PRIORITY_LIMIT} to "
            f"{PRIORITY_LIMIT}; the higher, the sooner"
        )
    return given


def digest_of(value: Any) -> str:
    """Of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def size_of(snapshot: Snapshot) -> int:
    """Bytes of all its files."""
    return sum(file.size for file in snapshot.files)


def _output(result: Result, job: Ref, inputs: Inputs) -> Ref:
    """What the job makes: an adapter in the base model's workspace, a model in the job's own."""
    workspace = inputs.model.workspace if result.kind == "adapter" else job.workspace
    if result.name is not None:
        return Ref(workspace, check_name(result.name, "spec.output.name"))
    data = inputs.data.fileset.partition("/")[2]
    name = f"{slug(f'{inputs.model.name}-{data}').strip('-').lower()}-{hexadecimal(12)}"
    return Ref(workspace, check_name(name, "spec.output.name"))


def _checkpoint(tx: Tx, workspace: str, text: str, field: str) -> tuple[Ref, Snapshot]:
    ref = Ref.parse(text, workspace, field)
    noun = "Teacher model" if "teacher" in field else "Model"
    try:
        entity = tx.models.get(ref.workspace, ref.name)
    except NotFound:
        if tx.adapters.find_row(ref.workspace, ref.name) is not None:
            raise Invalid(f"{field}: '{ref}' is an adapter; name a model with weights of its own") from None
        raise Invalid(f"{field}: {noun} entity not found: '{ref}'. Verify the model entity exists.") from None
    if entity.fileset is None:
        raise Invalid(
            f"{field}: {noun} '{ref}' has no fileset. Attach a fileset (workspace/name) with model weights before "
            "running training."
        )
    return ref, _snapshot(tx, entity.fileset, ref.workspace, f"{field}: model {ref}")


def _rows(tx: Tx, workspace: str, text: str, field: str) -> Snapshot:
    snapshot = _snapshot(tx, text, workspace, field)
    if not snapshot.files:
        raise Invalid(f"{field}: fileset '{snapshot.fileset}' has no files; upload a .jsonl file to it first")
    return snapshot


def _snapshot(tx: Tx, text: str, workspace: str, field: str) -> Snapshot:
    ref = Ref.fileset(text, workspace, field)
    try:
        return tx.filesets.snapshot(ref)
    except NotFound:
        noun = "Dataset fileset" if "dataset" in field else "Fileset"
        where = f"'{ref.name}' not found in workspace '{ref.workspace}'"
        raise Invalid(f"{field}: {noun} {where}. Verify that it exists.") from None
