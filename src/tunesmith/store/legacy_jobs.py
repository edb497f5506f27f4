"""Customization jobs of all workspaces, found as the older service's clients look for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from sqlalchemy import ColumnElement, Float, RowMapping, and_, literal, or_, select

from tunesmith.api.base import JsonObject, Page, PageRequest
from tunesmith.api.jobs import CustomizationJob, JobStatus
from tunesmith.api.legacy import LEGACY, LegacyStatus
from tunesmith.errors import BadRequest, NotFound
from tunesmith.refs import DEFAULT_WORKSPACE
from tunesmith.store.jobs import SOURCE, Jobs
from tunesmith.store.json_sql import JsonNumber, JsonText
from tunesmith.store.rows import ALL_WORKSPACES
from tunesmith.store.tables import jobs

T = TypeVar("T")

WORDS: Mapping[JobStatus, LegacyStatus] = {
    JobStatus.CREATED: "created",
    JobStatus.PENDING: "pending",
    JobStatus.ACTIVE: "running",
    JobStatus.PAUSING: "running",
    JobStatus.PAUSED: "pending",
    JobStatus.RESUMING: "pending",
    JobStatus.CANCELLING: "cancelling",
    JobStatus.CANCELLED: "cancelled",
    JobStatus.ERROR: "failed",
    JobStatus.COMPLETED: "completed",
}
"""What the older service calls a status."""
METHODS = ("sft", "dpo", "distillation", "grpo")
TUNINGS = ("lora", "lora_merged", "all_weights")


@dataclass(frozen=True, slots=True)
class SeenJob:
    """A customization job with everything that an older view of it shows."""

    job: CustomizationJob
    """With its backend's spec."""
    backend: str
    asked: JsonObject | None
    """The older call that it was submitted by; None = it came another way."""
    model: str
    """The base: `workspace/name`."""
    dataset: str
    output: str
    attempt: int


class LegacyJobs(Jobs):
    """Addressed by id or name."""

    def find(self, key: str) -> SeenJob:
        """The job of that id, else of that name: the only one, or the one in `default`.

        NotFound without it; BadRequest when jobs of several namespaces have the name.
        """
        mine = select(jobs).where(jobs.c.source == SOURCE)
        rows = self.connection.execute(mine.where(or_(jobs.c.id == key, jobs.c.name == key))).mappings().all()
        by_id = [row for row in rows if row["id"] == key]
        at_home = [row for row in rows if row["workspace"] == DEFAULT_WORKSPACE]
        if not rows:
            raise NotFound(f"Job '{key}' not found")
        if not by_id and not at_home and len(rows) > 1:
            places = ", ".join(sorted(row["workspace"] for row in rows))
            raise BadRequest(f"job_id: several namespaces have a job '{key}' ({places}); ask for it by its id")
        row = (by_id or at_home or rows)[0]
        return _seen({**row, "status_details": self._details(row)}, self.steps.of([row["id"]])[row["id"]])

    def page_of_seen(self, asked: PageRequest, wanted: Mapping[str, Any], view: Callable[[SeenJob], T]) -> Page[T]:
        """One page of the jobs that are as `wanted`, each as `view` shows it. BadRequest as `condition`."""

        def read(rows: Sequence[RowMapping]) -> list[T]:
            steps = self.steps.of([row["id"] for row in rows])
            return [view(_seen({**row}, steps.get(row["id"], []))) for row in rows]

        where = [condition(name, value) for name, value in wanted.items()]
        return self.page_of(ALL_WORKSPACES, asked, read, jobs.c.source == SOURCE, *where)


def condition(name: str, value: Any) -> ColumnElement[bool]:
    """What one of the older list's filters means; BadRequest for one that it has not, or whose value is none."""
    if name not in FILTERS:
        raise BadRequest(f"filter: '{name[:80]}' is none of {', '.join(FILTERS)}")
    if value is None:
        raise BadRequest(f"filter: {name} needs a value")
    return FILTERS[name](value)


def number(name: str, value: Any) -> float:
    """A number that may have come as text."""
    try:
        return float(int(str(value)))
    except ValueError:
        raise BadRequest(f"filter: {name} must be a whole number, not '{str(value)[:40]}'") from None


def one_of(name: str, value: Any, words: Sequence[str]) -> str:
    """A word of these."""
    if value not in words:
        raise BadRequest(f"filter: {name} '{str(value)[:40]}' is none of {', '.join(words)}")
    return str(value)


def _status(value: Any) -> ColumnElement[bool]:
    word = one_of("status", value, get_args(LegacyStatus))
    return jobs.c.status.in_([ours for ours, theirs in WORDS.items() if theirs == word])


def _method(value: Any) -> ColumnElement[bool]:
    word = one_of("training_type", value, METHODS)
    return or_(
        and_(jobs.c.backend == "automodel", JsonText(jobs.c.spec, ["training", "training_type"]) == word),
        and_(jobs.c.backend == "rl", JsonText(jobs.c.spec, ["training", "type"]) == word),
        and_(jobs.c.backend == "unsloth", literal(word) == "sft"),
    )


def _tuning(value: Any) -> ColumnElement[bool]:
    return _boolean(JsonText(jobs.c.result, ["finetuning_type"]) == one_of("finetuning_type", value, TUNINGS))


def _epochs(value: Any) -> ColumnElement[bool]:
    return _in_spec(number("epochs", value), schedule=["schedule", "epochs"], rl=["training", "epochs"])


def _batch(value: Any) -> ColumnElement[bool]:
    rows = number("batch_size", value)
    passes = [JsonNumber(jobs.c.spec, ["batch", name]) for name in UNSLOTH_BATCH]
    product = and_(jobs.c.backend == "unsloth", passes[0] * passes[1] == literal(rows, Float))
    return or_(product, _in_spec(rows, schedule=["batch", "global_batch_size"], rl=["training", "batch_size"]))


UNSLOTH_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


def _in_spec(value: float, *, schedule: Sequence[str], rl: Sequence[str]) -> ColumnElement[bool]:
    """The number at a place of the spec, which in rl is another one."""
    wanted = literal(value, Float)
    return or_(
        and_(jobs.c.backend != "rl", JsonNumber(jobs.c.spec, schedule) == wanted),
        and_(jobs.c.backend == "rl", JsonNumber(jobs.c.spec, rl) == wanted),
    )


def _named(column: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    """A `workspace/name`, or its name alone; a version behind it is cut."""
    wanted = str(value).partition("@")[0]
    return (
        or_(column == wanted, column.endswith(f"/{wanted}", autoescape=True))
        if "/" not in wanted
        else _boolean(column == wanted)
    )


def _every_step(_value: Any) -> ColumnElement[bool]:
    raise BadRequest("filter: log_every_n_steps cannot be asked for: every job logs every step")


def _boolean(found: Any) -> ColumnElement[bool]:
    assert isinstance(found, ColumnElement)
    return found


FILTERS: Mapping[str, Callable[[Any], ColumnElement[bool]]] = {
    "base_model": lambda value: _named(jobs.c.model_ref, value),
    "batch_size": _batch,
    "dataset": lambda value: _named(
        JsonText(jobs.c.inputs, ["data", "fileset"]), str(value).removeprefix("hf://datasets/")
    ),
    "epochs": _epochs,
    "finetuning_type": _tuning,
    "log_every_n_steps": _every_step,
    "namespace": lambda value: _boolean(jobs.c.workspace == str(value)),
    "project": lambda value: _boolean(jobs.c.project == str(value)),
    "status": _status,
    "training_type": _method,
}
"""What the older list may be narrowed by."""


def _seen(row: Mapping[str, Any], steps: Sequence[Any]) -> SeenJob:
    return SeenJob(
        job=CustomizationJob.model_validate({**row, "steps": steps}),
        backend=row["backend"],
        asked=row["asked"] if row["door"] == LEGACY else None,
        model=row["model_ref"],
        dataset=row["inputs"]["data"]["fileset"],
        output=row["output_ref"],
        attempt=row["attempt"],
    )
