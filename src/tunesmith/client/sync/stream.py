# Made by scripts/unasync.py from ../aio/stream.py: change that file and run the script again.
"""An answer that arrives in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import httpx

from tunesmith.api.base import JsonObject
from tunesmith.client.errors import APIError
from tunesmith.client.sse import Events
from tunesmith.client.sync.transport import Transport


class Chunks:
    """The chunks of a streamed answer, as the server sends them. Read to the end, or closed, it frees its connection.

    APIError if the answer breaks off.
    """

    def __init__(self, transport: Transport, response: httpx.Response) -> None:
        self._transport = transport
        self._response = response
        self._chunks = self._read()

    def __iter__(self) -> Iterator[JsonObject]:
        return self._chunks

    def __next__(self) -> JsonObject:
        return self._chunks.__next__()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading; the server notices and stops writing."""
        self._response.close()

    def _read(self) -> Iterator[JsonObject]:
        events = Events()
        try:
            for portion in self._response.iter_bytes():
                yield from events.feed(portion)
                if events.done:
                    return
        except httpx.TransportError as error:
            raise self._transport.failure(error) from error
        finally:
            self._response.close()
        raise APIError("the answer broke off before its end; ask again")
