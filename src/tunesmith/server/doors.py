"""The shorthand over HTTP, and how a door that is not a dialect's own reads what it is sent and says what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from tunesmith.api import paths
from tunesmith.api.base import JsonObject, Page
from tunesmith.api.doors import SHORTHAND, CreateShorthandJob
from tunesmith.api.jobs import CreateJob, CustomizationJob, JobState, LogPage, LogRequest
from tunesmith.control.submission import Asked
from tunesmith.errors import Invalid, TunesmithError
from tunesmith.server.answers import answer
from tunesmith.server.customization import Key, Listed
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House
from tunesmith.spec.base import Spec
from tunesmith.spec.doors import Translated, shorthand
from tunesmith.spec.grammars import GRAMMARS

router = routes_of("customization")

_FIELD = re.compile(r"[a-z_]\w*(?:\.\w+)*")


@router.post(paths.SHORTHAND_JOBS, status_code=201, response_model=CustomizationJob, name="create_shorthand_job")
async def create_job(workspace: str, asked: CreateShorthandJob, house: House, idempotency_key: Key = None) -> Response:
    """Submit a job in the shorthand; it goes to the backend that has what it asks for."""
    translated = translation(shorthand, asked.spec, ("spec",))
    job = asked_for(translated, asked, SHORTHAND, idempotency_key)
    with in_the_words_of(translated):
        return answer(await house.submission.submit(workspace, job), 201)


@router.get(paths.SHORTHAND_JOBS, response_model=Page[CustomizationJob], name="list_customization_jobs")
async def list_jobs(workspace: str, asked: Listed, house: House) -> Response:
    """One page of a workspace's fine-tuning jobs, whatever their backend; the shorthand shows those it submitted."""
    return answer(await house.jobs.page_customization(workspace, asked), exclude_none=True)


@router.get(paths.SHORTHAND_JOB, response_model=CustomizationJob, name="get_customization_job")
async def get_job(workspace: str, name: str, house: House) -> Response:
    """One job, in the shorthand if that is what it was submitted in, else with its backend's spec."""
    return answer(await house.jobs.get_customization(workspace, name))


@router.delete(paths.SHORTHAND_JOB, status_code=204, name="delete_customization_job")
async def delete_job(workspace: str, name: str, house: House) -> None:
    """Take a job out; one that runs is ended first. What it made stays."""
    await house.jobs.get_customization(workspace, name)
    await house.jobs.delete(workspace, name)


@router.post(paths.SHORTHAND_JOB_CANCEL, response_model=CustomizationJob, name="cancel_customization_job")
async def cancel_job(workspace: str, name: str, house: House) -> Response:
    """Ask for the end of a job."""
    await house.jobs.get_customization(workspace, name)
    await house.jobs.cancel(workspace, name)
    return answer(await house.jobs.get_customization(workspace, name))


@router.get(paths.SHORTHAND_JOB_STATUS, name="customization_job_status")
async def job_status(workspace: str, name: str, house: House) -> JobState:
    """Status, steps, progress and metrics."""
    return await house.jobs.state(workspace, name)


@router.get(paths.SHORTHAND_JOB_LOGS, name="customization_job_logs")
async def job_logs(workspace: str, name: str, asked: Annotated[LogRequest, Query()], house: House) -> LogPage:
    """What the job's processes said."""
    return await house.jobs.logs(workspace, name, asked)


# -- what doors share ------------------------------------------------------------------------------------------------


def translation(translate: Callable[[JsonObject], Translated], sent: JsonObject, at: Sequence[str] = ()) -> Translated:
    """What was sent, translated; a field without a counterpart is a 422 that lists it.

    `at` is where in the body `sent` stands: `translate` names fields with that in front.
    """
    try:
        return translate(sent)
    except Invalid as error:
        named = _FIELD.match(error.message)
        field = tuple(named[0].split(".")) if named and named.end() < len(error.message) else at
        value = _value(sent, field[len(at) :])
        raise RequestValidationError(
            [{"type": "value_error", "loc": ("body", *field), "msg": error.message, "input": value}]
        ) from None


def asked_for(translated: Translated, envelope: CreateJob, door: str, key: str | None = None) -> Asked:
    """The job as its backend's grammar reads it; broken rules are a 422 in the words of the door.

    Custom fields may stand beside the spec or in it; those beside it win.
    """
    fields = {**(translated.custom_fields or {}), **(envelope.custom_fields or {})} or None
    beside = envelope.model_dump(include=set(CreateJob.model_fields)) | {"custom_fields": fields}
    return Asked(
        translated.backend,
        CreateJob(**beside),
        _read(translated),
        door=door,
        door_spec=translated.shown,
        idempotency_key=key,
    )


@contextmanager
def in_the_words_of(translated: Translated) -> Iterator[None]:
    """What is said of the spec's fields is said of the door's."""
    try:
        yield
    except TunesmithError as error:
        raise type(error)(translated.reworded(error.message)) from None


def _read(translated: Translated) -> Spec:
    try:
        return GRAMMARS[translated.backend].model_validate(translated.spec)
    except ValidationError as error:
        raise RequestValidationError([_told(translated, each) for each in error.errors(include_url=False)]) from None


def _told(translated: Translated, error: Any) -> dict[str, Any]:
    """One of pydantic's errors, in the door's words."""
    where = translated.field_of(error["loc"]) if error["loc"] else ()
    return {**error, "loc": ("body", *where), "msg": translated.reworded(error["msg"])}


def _value(sent: Any, path: Sequence[str]) -> Any:
    """What stands at a path of the body; None where nothing does."""
    for step in path:
        sent = sent.get(step) if isinstance(sent, dict) else None
    return sent
