"""One handler for every way of saying no: `{"detail": ...}` with the status of the error's class."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from tunesmith.errors import TunesmithError
from tunesmith.server.body import SECRETS
from tunesmith.spec.hints import BACKENDS, hinted

ERRORS_SHOWN = 100
LONGEST_INPUT = 1000
"""Characters of JSON of an input that a 422 repeats."""
HIDDEN = "(not repeated)"
_JOBS_OF_DIALECT = re.compile(rf"/({'|'.join(BACKENDS)})/jobs$")
_CREDENTIAL = re.compile(r"(^|_)(key|token|password|passphrase|credentials?)$", re.IGNORECASE)


def install(app: FastAPI) -> None:
    """Answer domain errors and broken rules; what nobody expects is answered by `logs.Requests`."""

    @app.exception_handler(TunesmithError)
    async def refuse(_request: Request, error: TunesmithError) -> JSONResponse:
        headers = {"x-should-retry": "false"} if error.status in (409, 507) else {}
        if error.status == 503:
            headers["retry-after"] = "1"
        return JSONResponse({"detail": error.message}, error.status, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def name_the_fields(request: Request, error: RequestValidationError) -> JSONResponse:
        secret = request.url.path.startswith(SECRETS)
        found: Sequence[Mapping[str, Any]] = error.errors()[:ERRORS_SHOWN]
        if dialect := _JOBS_OF_DIALECT.search(request.url.path):
            found = hinted(found, dialect[1], start=len(("body", "spec")))
        return JSONResponse({"detail": _wrong_fields(found, secret)}, 422)


def _wrong_fields(errors: Sequence[Mapping[str, Any]], secret: bool) -> list[dict[str, Any]]:
    """The list of a 422; with `secret` no input is repeated."""
    shown = []
    for error in errors:
        wrong = {key: error[key] for key in ("type", "loc", "msg", "input", "ctx") if key in error}
        hidden = secret or any(isinstance(part, str) and _CREDENTIAL.search(part) for part in error["loc"])
        wrong["input"] = HIDDEN if hidden else _short(error.get("input"))
        shown.append(jsonable_encoder(wrong))
    return shown


def _short(value: Any) -> Any:
    """`value` as JSON without credentials, or how long it is where it is long."""
    if _is_long(value):
        return f"(more than {LONGEST_INPUT} characters, not repeated)"
    value = _without_credentials(jsonable_encoder(value))
    length = len(json.dumps(value))
    return value if length <= LONGEST_INPUT else f"({length} characters, not repeated)"


def _is_long(value: Any) -> bool:
    """Whether it is long for certain; found without reading all of it, which may take seconds."""
    length, left = 0, [value]
    while left and length <= LONGEST_INPUT:
        each = left.pop()
        length += len(each) if isinstance(each, str) else 1
        if isinstance(each, dict | list):
            left.extend(islice(each.values() if isinstance(each, dict) else each, LONGEST_INPUT))
    return length > LONGEST_INPUT


def _without_credentials(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: HIDDEN if _CREDENTIAL.search(key) else _without_credentials(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_credentials(item) for item in value]
    return value
