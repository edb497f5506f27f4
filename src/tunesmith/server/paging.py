"""The query string of a list: page, order and filter, the same for every noun. Contract 1.3 and 1.4."""

# No `from __future__ import annotations` here: FastAPI could not look up `listing` in the annotations.
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Query, Request
from fastapi.exceptions import RequestValidationError

from tunesmith.api.base import Listing, PageRequest
from tunesmith.api.filter_query import parse

LAST_PAGE = 10**9
"""Times the largest page still a number that any database can count to."""
OWN = ("page", "page_size", "sort", "filter")


def page_request(listing: Listing, *beside: str) -> Callable[..., Awaitable[PageRequest]]:
    """The dependency that reads a list's query string; `beside` are keys that the route itself reads.

    A key that nobody reads is refused: it would be ignored, and the answer would not be the one that was asked for.
    """
    known = {*OWN, *beside}
    orders = ", ".join(f"{sign}{name}" for name in listing.sortable for sign in ("", "-"))

    async def asked(
        request: Request,
        page: Annotated[int, Query(ge=1, le=LAST_PAGE, description="1-based.")] = 1,
        page_size: Annotated[int, Query(ge=1, le=listing.largest)] = listing.page_size,
        sort: Annotated[str, Query(description=f"One of {orders}.")] = listing.sort,
        filter: Annotated[  # noqa: A002, ARG001 the wire's word, declared for OpenAPI: all of `filter[...]` is read below
            str | None, Query(description='`filter[field]=value`, JSON, or text such as `name~"x" AND page > 2`.')
        ] = None,
    ) -> PageRequest:
        pairs = request.query_params.multi_items()
        for key, value in pairs:
            if key not in known and not key.startswith("filter["):
                raise _wrong(key, value, "extra_forbidden", f"this list knows {', '.join(sorted(known))}")
        if listing.sortable and sort.removeprefix("-") not in listing.sortable:
            raise _wrong("sort", sort, "enum", f"Input should be one of {orders}")
        narrowing = [(key, value) for key, value in pairs if key == "filter" or key.startswith("filter[")]
        return PageRequest(page, page_size, sort, parse(narrowing) if narrowing else None)

    return asked


def _wrong(key: str, value: str, kind: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": kind, "loc": ("query", key), "msg": message, "input": value}])
