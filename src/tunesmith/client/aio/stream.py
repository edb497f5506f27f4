"""An answer that arrives in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import httpx

from tunesmith.api.base import JsonObject
from tunesmith.client.aio.transport import AsyncTransport
from tunesmith.client.errors import APIError
from tunesmith.client.sse import Events


class AsyncChunks:
    """The chunks of a streamed answer, as the server sends them. Read to the end, or closed, it frees its connection.

    APIError if the answer breaks off.
    """

    def __init__(self, transport: AsyncTransport, response: httpx.Response) -> None:
        self._transport = transport
        self._response = response
        self._chunks = self._read()

    def __aiter__(self) -> AsyncIterator[JsonObject]:
        return self._chunks

    async def __anext__(self) -> JsonObject:
        return await self._chunks.__anext__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading; the server notices and stops writing."""
        await self._response.aclose()

    async def _read(self) -> AsyncIterator[JsonObject]:
        events = Events()
        try:
            async for portion in self._response.aiter_bytes():
                for event in events.feed(portion):
                    yield event
                if events.done:
                    return
        except httpx.TransportError as error:
            raise self._transport.failure(error) from error
        finally:
            await self._response.aclose()
        raise APIError("the answer broke off before its end; ask again")
