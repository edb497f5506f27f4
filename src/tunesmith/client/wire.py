"""From arguments to a request body, and from an answer to the models of `tunesmith.api`: strict out, lenient in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from tunesmith.api.base import JsonObject
from tunesmith.client.errors import APIResponseError, APIStatusError, lines, refusal
from tunesmith.errors import Invalid

M = TypeVar("M", bound=BaseModel)

Filter = str | Mapping[str, Any]
"""What a list is narrowed by: text (`name~"mail" AND created_at > "2026-01-01"`) or a tree (`{"name": {"$in": [...]}}`,
`{"purpose": "dataset"}`, `{"$or": [...]}`)."""


def ask(request: type[BaseModel], **given: Any) -> JsonObject:
    """The JSON body of `request` with what is `given`; what is None is left to the platform's defaults.

    Raises `tunesmith.errors.Invalid` with a line per broken rule, before anything is sent.
    """
    return ask_in(None, request, **given)


def ask_in(backend: str | None, request: type[BaseModel], /, **given: Any) -> JsonObject:
    """As `ask`, of a request that holds a spec of this backend."""
    try:
        asked = request(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        raise refusal(error, backend) from None
    return asked.model_dump(mode="json", exclude_unset=True, by_alias=True)


def narrowed(given: Filter | None) -> str | None:
    """A filter as one value of a query string."""
    if given is None or isinstance(given, str):
        return given
    return json.dumps(given, default=_plain, ensure_ascii=False)


def read(answer: type[M], response: httpx.Response) -> M:
    """The answer as a model. Keys this client does not know are ignored; absent ones are null, as lists drop nulls."""
    body = content(response)
    try:
        return answer.model_validate(body, extra="ignore")
    except ValidationError as error:
        absent = [item["loc"] for item in error.errors() if item["type"] == "missing"]
    for loc in absent:
        _put_null(body, loc)
    try:
        return answer.model_validate(body, extra="ignore")
    except ValidationError as error:
        wrong = "; ".join(lines(error.errors()))
        raise APIResponseError(
            f"{_request(response)} was answered with something this client cannot read ({wrong}): "
            "client and platform are of different versions; install the same one on both sides"
        ) from None


def content(response: httpx.Response) -> Any:
    """The answer's JSON; None if it is empty."""
    if not response.content:
        return None
    try:
        return json.loads(response.content)
    except ValueError:
        raise APIResponseError(
            f"{_request(response)} was answered with something that is not JSON: is {response.url.netloc.decode()} "
            "the address of a Tunesmith server?"
        ) from None


def refused(response: httpx.Response) -> APIStatusError:
    """The error for an answer that says no; its body has been read."""
    try:
        body = json.loads(response.content)
    except ValueError:
        body = response.text
    return APIStatusError.of(response.status_code, body, _request(response))


def _plain(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise Invalid(f"filter: a {type(value).__name__} cannot be sent; text, numbers, booleans, null and times can")


def _put_null(body: Any, loc: tuple[int | str, ...]) -> None:
    """Write null at `loc` as far as it leads."""
    for part in loc[:-1]:
        try:
            body = body[part]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(body, dict):
        body.setdefault(loc[-1], None)


def _request(response: httpx.Response) -> str:
    return f"{response.request.method} {response.request.url.path}"
