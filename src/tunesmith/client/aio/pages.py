"""A list that comes in pages and reads as one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from tunesmith.api.base import JsonObject, Page, Pagination
from tunesmith.client import wire
from tunesmith.client.aio.transport import AsyncTransport

T = TypeVar("T")

PAGE_SIZE = 100
"""Asked for when the caller does not say: few round trips, and within every list's limit."""


class AsyncPages(Generic[T]):
    """The first page, as `data` and `pagination`; iterating goes on through all pages, asking for each when needed."""

    def __init__(
        self, transport: AsyncTransport, answer: type[Page[T]], path: str, query: JsonObject, first: Page[T]
    ) -> None:
        self.data = first.data
        self.pagination: Pagination = first.pagination
        self._transport = transport
        self._answer = answer
        self._path = path
        self._query = query

    @classmethod
    async def begin(
        cls,
        transport: AsyncTransport,
        answer: type[Page[T]],
        path: str,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
        filter: wire.Filter | None = None,
        **more: str | None,
    ) -> AsyncPages[T]:
        """Ask for the first page wanted. `more` goes along in the query string; None stays here."""
        query: JsonObject = {"page": page, "page_size": page_size or PAGE_SIZE, "sort": sort, **more}
        query["filter"] = wire.narrowed(filter)
        return cls(transport, answer, path, query, await transport.get(answer, path, query))

    def __repr__(self) -> str:
        page = self.pagination
        return (
            f"{type(self).__name__}(page {page.page} of {page.total_pages}, {page.total_results} in all: {self.data!r})"
        )

    async def __aiter__(self) -> AsyncIterator[T]:
        for item in self.data:
            yield item
        page, count = self.pagination, len(self.data)
        while count and page.page < page.total_pages:
            query = self._query | {"page": page.page + 1}
            more = await self._transport.get(self._answer, self._path, query)
            page, count = more.pagination, len(more.data)
            for item in more.data:
                yield item
