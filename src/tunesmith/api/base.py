"""What all wire shapes share: strict requests, lenient resources, timestamps, pages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import ConfigDict, PlainSerializer, StringConstraints

from tunesmith.api.filters import Filter, echo
from tunesmith.described import Described
from tunesmith.refs import FIRST_LOOK

Timestamp = Annotated[datetime, PlainSerializer(lambda at: at.isoformat(timespec="microseconds"), return_type=str)]
"""Naive UTC with microseconds and no offset, contract 1.5."""

Name = Annotated[str, StringConstraints(pattern=FIRST_LOOK, max_length=255)]
"""The wire's first look at a name; the store's own rule is `refs.check_name`."""

ProjectName = Annotated[str, StringConstraints(pattern=r"^[\w\-./]*$", max_length=255)]
"""The project that a thing belongs to, which must exist in the thing's workspace; "" is none."""

JsonObject = dict[str, Any]

T = TypeVar("T")


class Request(Described):
    """A request body: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Resource(Described):
    """Something the platform answers with: unknown keys are ignored when it is read back."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Pagination(Resource):
    """Where a page stands among all results."""

    page: int
    """1-based."""
    page_size: int
    current_page_size: int
    total_pages: int
    total_results: int


class Page(Resource, Generic[T]):
    """One page of a list; `data` drops null keys on the wire."""

    data: list[T]
    pagination: Pagination
    sort: str | None = None
    filter: JsonObject | None = None


class Items(Resource, Generic[T]):
    """A whole list without pages."""

    data: list[T]


class Deleted(Resource):
    """What is answered where a deletion has something to say."""

    message: str
    id: str
    """The name of what went."""


@dataclass(frozen=True, slots=True)
class Listing:
    """How a noun is listed when nothing is asked for, and how far a request may go. Contract 1.3."""

    page_size: int = 100
    largest: int = 1000
    sort: str = "-created_at"
    sortable: tuple[str, ...] = ("created_at", "updated_at", "name")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of which list, in which order, narrowed by what. Made at the door, by `server/paging.py`."""

    page: int = 1
    """1-based."""
    page_size: int = 100
    sort: str = "-created_at"
    """A field's name, `-` in front for descending."""
    filter: Filter | None = None


def paged(data: list[T], total: int, asked: PageRequest) -> Page[T]:
    """The envelope around `data`, which is page `asked.page` of `total` results."""
    return Page[T](
        data=data,
        pagination=Pagination(
            page=asked.page,
            page_size=asked.page_size,
            current_page_size=len(data),
            total_pages=-(-total // asked.page_size),
            total_results=total,
        ),
        sort=asked.sort,
        filter=echo(asked.filter),
    )
