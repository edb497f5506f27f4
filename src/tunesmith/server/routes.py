"""Routes, hung up as they were made, and what all of them may refuse; OpenAPI is put together when it is asked for.

FastAPI's `include_router` makes every route a second time when a request first comes by, and a validator for each of
its refusals: a thousand and a half, a third of the time until the first answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tunesmith.described import Described

SHAPES = "#/components/schemas/{model}"


class Refusal(Described):
    """Every answer that is not what was asked for."""

    detail: str | dict[str, Any]
    """What was refused and why: the field, the value, the rule and the way out."""


class WrongField(Described):
    """One field that breaks a rule."""

    type: str
    """pydantic's code of the rule, such as `missing` or `extra_forbidden`."""
    loc: list[str | int]
    """`body`, `query` or `path`, then the way to the field."""
    msg: str
    input: Any = None
    """What was sent, unless it is long or may be a credential."""
    ctx: dict[str, Any] | None = None


class InvalidRequest(Described):
    """The request breaks a rule: a list where fields do, a text where the rule is about more than one."""

    detail: list[WrongField] | str


def refusal(words: str, shape: type[BaseModel] = Refusal) -> dict[str, Any]:
    """A way to say no, as OpenAPI writes it."""
    schema = {"$ref": SHAPES.format(model=shape.__name__)}
    return {"description": words, "content": {"application/json": {"schema": schema}}}


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: refusal("The query, filter, path or reference cannot be understood."),
    403: refusal("Not allowed here, or from the page that asks."),
    404: refusal("What was named does not exist."),
    409: refusal("Collides with what exists; repeating it will not help."),
    413: refusal("The body is too large."),
    415: refusal("The body is not JSON."),
    422: refusal("The request can be read but breaks a rule.", InvalidRequest),
    502: refusal("A server that this was passed on to could not be reached, or refused."),
    503: refusal("Not now; the same request will do a little later."),
    507: refusal("The disk is full; nothing was stored."),
}
"""What every route may answer."""


def routes_of(tag: str) -> APIRouter:
    """A noun's routes, to be filled; `tag` is its heading in OpenAPI."""
    return APIRouter(tags=[tag], responses=REFUSALS)


def hang_up(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Let the app answer on all routes, which are held against a request in this order, and describe them."""
    for router in routers:
        app.router.routes.extend(router.routes)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The app's OpenAPI document, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        _, shapes = models_json_schema(
            [(Refusal, "serialization"), (InvalidRequest, "serialization")], ref_template=SHAPES
        )
        schemas = app.openapi_schema["components"]["schemas"] | shapes["$defs"]
        app.openapi_schema["components"]["schemas"] = dict(sorted(schemas.items()))
    return app.openapi_schema
