"""What all wire shapes share: strict requests, lenient resources, the page envelope, timestamps."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints

from tunesmith.refs import FIRST_LOOK

Timestamp = Annotated[datetime, PlainSerializer(lambda at: at.isoformat(timespec="microseconds"), return_type=str)]
"""Naive UTC with microseconds and no offset, contract 1.5."""

Name = Annotated[str, StringConstraints(pattern=FIRST_LOOK, max_length=255)]
"""The wire's first look at a name; the store's own rule is `refs.check_name`."""

JsonObject = dict[str, Any]

T = TypeVar("T")


class Request(BaseModel):
    """A request body: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Resource(BaseModel):
    """Something the platform answers with: unknown keys are ignored when it is read back."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


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


class PageRequest(Request):
    """Which page of which list, in which order."""

    page: Annotated[int, Field(ge=1, le=10**9)] = 1
    """1-based."""
    page_size: Annotated[int, Field(ge=1, le=1000)] = 100
    sort: str = "-created_at"
    """A field's name, `-` in front for descending."""


class ShortPageRequest(PageRequest):
    """As PageRequest, for lists whose pages are short unless asked otherwise."""

    page_size: Annotated[int, Field(ge=1, le=1000)] = 10


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
    )
