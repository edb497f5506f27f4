"""What the older customization service's clients may do: submit, follow, cancel jobs, and see what can be trained."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.filters import AllOf, AnyOf, Filter, Op, Test
from tunesmith.api.jobs import LogRequest
from tunesmith.api.legacy import ContainerLogs, LegacyConfig, LegacyJob, LegacyJobStatus, LegacyPage, LegacyTarget
from tunesmith.api.models import Model
from tunesmith.api.secrets import CreateSecret
from tunesmith.control import legacy, progress
from tunesmith.control.jobs import JobService
from tunesmith.control.secrets import SecretService
from tunesmith.control.submission import Asked, Submission
from tunesmith.errors import BadRequest, Invalid, NotFound
from tunesmith.handoff.events import events_path, read_events
from tunesmith.refs import DEFAULT_WORKSPACE, JOB_NAME_LIMIT, Ref, check_name
from tunesmith.spec.doors import Translated
from tunesmith.spec.translation import put
from tunesmith.store.database import Database, Tx
from tunesmith.store.filtering import truth
from tunesmith.store.ids import hexadecimal, now
from tunesmith.store.jobs import OWN_SECRET
from tunesmith.store.legacy_jobs import METHODS, TUNINGS, LegacyJobs, SeenJob, one_of
from tunesmith.store.rows import ALL_WORKSPACES

T = TypeVar("T")
LOG_LINES = 1000
"""The last ones that container logs show."""
NONE = AnyOf(())
TARGET_STATUSES = (
    *("created", "pending", "downloading", "failed", "ready"),
    *("cancelled", "unknown", "deleted", "deleting", "delete_failed"),
)


class LegacyService:
    """The verbs. They stand on those of jobs, submission and secrets."""

    def __init__(self, database: Database, jobs: JobService, submission: Submission, secrets: SecretService) -> None:
        self.database = database
        self.jobs = jobs
        self.submission = submission
        self.secrets = secrets

    # -- jobs ------------------------------------------------------------------------------------------------------

    async def resolve(self, asked: Translated, wandb_api_key: str | None) -> Translated:
        """The job with the model that is meant; with a key it gets a name, and refers to a secret of that name's.

        Invalid when neither namespace has the model, or when a key is given twice.
        """
        meant = await self.database.read(_model_meant, asked)
        spec = asked.spec | {"model": meant}
        if not wandb_api_key:
            return replace(asked, spec=spec)
        tracker = (spec.get("integrations") or {}).get("wandb") or {}
        if tracker.get("api_key_secret"):
            raise Invalid("integrations.wandb.api_key_secret: the header wandb-api-key is given too; leave one out")
        name = check_name(asked.name or f"{asked.backend}-{hexadecimal(12)}", limit=JOB_NAME_LIMIT)
        own = secret_of(name)
        put(spec, "integrations.wandb", {**tracker, "api_key_secret": own})
        return replace(asked, spec=spec, name=name, shown=asked.shown | {OWN_SECRET: own})

    async def submit(self, workspace: str, asked: Asked, wandb_api_key: str | None) -> LegacyJob:
        """Queue the job; a key is kept as its secret, which is deleted with it. Fails as `Submission.submit`."""
        own = (asked.door_spec or {}).get(OWN_SECRET)
        if own and wandb_api_key:
            described = f"Weights & Biases key of job {asked.envelope.name}; deleted with it"
            await self.secrets.create(
                workspace, CreateSecret(name=own, value=SecretStr(wandb_api_key), description=described)
            )
        try:
            job = await self.submission.submit(workspace, asked)
        except BaseException:
            if own:
                await self.secrets.delete(workspace, own)
            raise
        return await self.get(job.id)

    async def get(self, key: str) -> LegacyJob:
        """The job by id or name."""
        seen = await self._seen(key)
        return legacy.job(seen, now(), await self._stamps(seen))

    async def status(self, key: str) -> LegacyJobStatus:
        """How it is doing."""
        seen = await self._seen(key)
        return legacy.status(seen, now(), await self._stamps(seen))

    async def page(self, asked: PageRequest) -> LegacyPage[LegacyJob]:
        """One page of the jobs of all namespaces, without their series."""
        wanted, at = plain(asked.filter), now()
        page = await self.database.search(_page_of_jobs, replace(asked, filter=None), wanted, at)
        return _as_legacy(page, wanted, page.data)

    async def cancel(self, key: str) -> LegacyJob:
        """Ask for its end; a finished job stays as it is."""
        job = (await self._seen(key)).job
        await self.jobs.cancel(job.workspace, job.name)
        return await self.get(job.id)

    async def logs(self, key: str) -> ContainerLogs:
        """The last lines of what its processes said, by step."""
        seen = await self._seen(key)
        at = (seen.job.workspace, seen.job.name)
        found = await self.jobs.logs(*at, LogRequest(limit=LOG_LINES))
        if found.total > LOG_LINES:
            last = LogRequest(limit=LOG_LINES, page_cursor=str(found.total - LOG_LINES))
            found = await self.jobs.logs(*at, last)
        return legacy.container_logs(seen, found.data)

    async def _seen(self, key: str) -> SeenJob:
        return await self.database.read(lambda tx: LegacyJobs(tx.connection).find(key))

    async def _stamps(self, seen: SeenJob) -> legacy.Stamps:
        return await asyncio.to_thread(stamps, self.jobs.data_dir.run(seen.job.id), seen.attempt)

    # -- configs and targets: model entities with a checkpoint -----------------------------------------------------

    async def config(self, namespace: str, name: str) -> LegacyConfig:
        """The ways to train a model; NotFound without it, or without its checkpoint."""
        return legacy.config(await self._model("Config", namespace, name))

    async def target(self, namespace: str, name: str) -> LegacyTarget:
        """A model as something to be trained; NotFound without it, or without its checkpoint."""
        return legacy.target(await self._model("Target", namespace, name))

    async def configs(self, asked: PageRequest) -> LegacyPage[LegacyConfig]:
        """One page of the configs of all namespaces."""
        return await self._models(asked, CONFIG_FILTERS, legacy.config)

    async def targets(self, asked: PageRequest) -> LegacyPage[LegacyTarget]:
        """One page of the targets of all namespaces."""
        return await self._models(asked, TARGET_FILTERS, legacy.target)

    async def _model(self, noun: str, namespace: str, name: str) -> Model:
        try:
            model = await self.database.read(lambda tx: tx.models.get(namespace, name.partition("@")[0]))
        except NotFound:
            raise NotFound(f"{noun} '{namespace}/{name}' not found: there is no such model entity") from None
        if model.fileset is None:
            raise NotFound(f"{noun} '{namespace}/{name}' not found: the model entity has no checkpoint")
        return model

    async def _models(
        self, asked: PageRequest, filters: Mapping[str, Callable[[Any], Filter]], view: Callable[[Model], T]
    ) -> LegacyPage[T]:
        wanted = plain(asked.filter)
        for name in wanted:
            if name not in filters:
                raise BadRequest(f"filter: '{name[:80]}' is none of {', '.join(filters)}")
        tests = (Test("fileset", Op.EXISTS, True), *(filters[name](value) for name, value in wanted.items()))
        sort = "-created_at" if asked.sort.endswith("target_enabled") else asked.sort  # all of them are
        narrowed = replace(asked, filter=AllOf(tests), sort=sort)
        page = await self.database.search(lambda tx: tx.models.page(ALL_WORKSPACES, narrowed))
        return _as_legacy(page, wanted, [view(model) for model in page.data])


def secret_of(job: str) -> str:
    """A name for a job's own secret, such as a reference may have: at most 62 characters."""
    words = re.sub(r"[^a-z0-9_]+", "-", job).strip("-")
    return f"{words}-wandb-{hexadecimal(4)}"


def plain(asked: Filter | None) -> dict[str, Any]:
    """A filter of the older kind, `filter[key]=value` for one or more keys; BadRequest for any other."""
    match asked:
        case None:
            return {}
        case Test(name, Op.EQ, value):
            return {name: value}
        case AllOf(parts) if all(isinstance(part, Test) and part.op is Op.EQ for part in parts):
            return {part.field: part.value for part in parts if isinstance(part, Test)}
        case _:
            raise BadRequest("filter: this list knows filter[key]=value only; the platform's own lists know more")


def stamps(run: Path, attempts: int) -> dict[tuple[str, int], float]:
    """When each point of a job's series was reported; the last attempt wins. Blocking."""
    found: dict[tuple[str, int], float] = {}
    for attempt in range(1, attempts + 1):
        offset = 0
        while True:
            events, offset = read_events(events_path(run, attempt), offset)
            if not events:
                break
            found.update({point[:2]: event.at for event in events for point in progress.points(event)})
    return found


def _page_of_jobs(tx: Tx, asked: PageRequest, wanted: Mapping[str, Any], at: datetime) -> Page[LegacyJob]:
    return LegacyJobs(tx.connection).page_of_seen(asked, wanted, lambda seen: legacy.job(seen, at))


def _as_legacy(page: Page[Any], wanted: dict[str, Any], data: list[T]) -> LegacyPage[T]:
    return LegacyPage[T](data=data, pagination=page.pagination, sort=page.sort, filter=wanted or None)


def _model_meant(tx: Tx, asked: Translated) -> Any:
    """The spec's reference, or that to `default`, whichever exists; Invalid when neither does."""
    text, workspace = asked.spec["model"], asked.workspace or DEFAULT_WORKSPACE
    tried = []
    for each in filter(None, (text, asked.model_otherwise)):
        ref = Ref.parse(each, workspace, "config")
        if tx.models.find_row(ref.workspace, ref.name) is not None:
            return str(ref)
        tried.append(f"'{ref}'")
    raise Invalid(
        f"config: Model entity not found: {' nor '.join(tried)}. Create a model entity of that name over a fileset "
        "with the checkpoint first."
    )


def _name(value: Any) -> Filter:
    """A model by its name, with or without namespace and version."""
    namespace, slash, name = str(value).partition("@")[0].rpartition("/")
    test = Test("name", Op.EQ, name)
    return AllOf((test, Test("workspace", Op.EQ, namespace))) if slash else test


def _base_model(value: Any) -> Filter:
    return AnyOf(
        (Test("base_model.name", Op.EQ, str(value)), AllOf((_name(value), Test("base_model.name", Op.EQ, None))))
    )


def _enabled(value: Any) -> Filter:
    return AllOf(()) if truth("enabled", value) else NONE


def _trainable(name: str, words: tuple[str, ...], value: Any) -> Filter:
    """All models can be trained in the same ways: all or none of them."""
    return AllOf(()) if one_of(name, value, words) in legacy.offered(f"training.{name}", words) else NONE


def _target_status(value: Any) -> Filter:
    one_of("status", value, TARGET_STATUSES)
    states = {"ready": ["completed", "given"], "pending": ["pending"], "failed": ["failed"]}.get(value)
    return Test("custom_fields.spec_status", Op.IN, states) if states else NONE


_NAMESPACED: dict[str, Callable[[Any], Filter]] = {
    "name": lambda value: Test("name", Op.EQ, str(value)),
    "namespace": lambda value: Test("workspace", Op.EQ, str(value)),
}
CONFIG_FILTERS: Mapping[str, Callable[[Any], Filter]] = {
    **_NAMESPACED,
    "training_type": lambda value: _trainable("training_type", METHODS, value),
    "finetuning_type": lambda value: _trainable("finetuning_type", TUNINGS, value),
    "target_name": _name,
    "target_base_model": _base_model,
    "target_enabled": _enabled,
}
TARGET_FILTERS: Mapping[str, Callable[[Any], Filter]] = {
    **_NAMESPACED,
    "base_model": _base_model,
    "enabled": _enabled,
    "status": _target_status,
}
