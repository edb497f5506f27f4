"""The bytes of a file as an answer: whole or the part that a Range header asks for, as they are, never compressed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from tunesmith.control.filesets import OpenFile
from tunesmith.errors import RangeUnfit

BYTES: Final = "application/octet-stream"
_RANGE: Final = re.compile(r"bytes=\s*(?:([0-9]{1,30})-([0-9]{0,30})|-([0-9]{1,30}))\s*(?:,.*)?", re.DOTALL)

Reader = Callable[[OpenFile, int, int], AsyncIterator[bytes]]
"""The bytes `start` to `stop` of a file."""


def requested_part(header: str, size: int) -> tuple[int, int]:
    """Where the first range of a Range header starts and stops in `size` bytes; an end past the file's is its end.

    RangeUnfit when it cannot be read, or none of its bytes exist.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        raise RangeUnfit(f"Invalid range: {header[:200]}")
    first, last, suffix = found.groups()
    if suffix is not None:
        start, stop = max(0, size - int(suffix)), size
    else:
        start, stop = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < int(first):
            raise RangeUnfit(f"Invalid range: {header[:200]}")
    if start >= stop:
        raise RangeUnfit(f"Invalid range: {header[:200]}")
    return start, stop


def download(
    request: Request, opened: OpenFile, read: Reader, headers: Mapping[str, str] | None = None, tag: str = ""
) -> Response:
    """The answer to GET or HEAD: 200, 206, 304 where the reader has the bytes already, or 416.

    `tag` is the ETag without quotes, by default the file's own.
    """
    size, etag = opened.file.size, f'"{tag or opened.tag}"'
    shared = {"accept-ranges": "bytes", "etag": etag, "content-type": BYTES, **(headers or {})}
    asked = request.headers
    if _names(asked.get("if-none-match"), etag):
        return Response(status_code=304, headers={key: shared[key] for key in shared if key != "content-type"})
    part = asked.get("range")
    if part is None or request.method == "HEAD" or asked.get("if-range", etag) != etag:
        return _Bytes(200, {**shared, "content-length": str(size)}, lambda: read(opened, 0, size))
    try:
        start, stop = requested_part(part, size)
    except RangeUnfit as error:
        refusal = {"accept-ranges": "bytes", "content-range": f"bytes */{size}"}
        return JSONResponse({"detail": error.message}, error.status, headers=refusal)
    span = {"content-range": f"bytes {start}-{stop - 1}/{size}", "content-length": str(stop - start)}
    return _Bytes(206, {**shared, **span}, lambda: read(opened, start, stop))


class _Bytes(Response):
    """Sends chunks as they are; nothing is sent before the first is there, so that its failure has a status."""

    def __init__(self, status: int, headers: Mapping[str, str], chunks: Callable[[], AsyncIterator[bytes]]) -> None:
        self.status_code = status
        self.background = None
        self.raw_headers = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a HEAD gets the headers alone. Stops reading when the reader hangs up."""
        begin = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if scope["method"] == "HEAD":
            await send(begin)
            await send({"type": "http.response.body", "body": b""})
            return
        hung_up: asyncio.Task[None] | None = None
        begun = False
        try:
            async with aclosing(self._chunks()) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    if begun:
                        hung_up = hung_up or asyncio.create_task(_end_of(receive))
                        if hung_up.done():
                            return
                    else:
                        await send(begin)
                        begun = True
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            if hung_up:
                hung_up.cancel()
        if not begun:
            await send(begin)
        await send({"type": "http.response.body", "body": b""})


async def _end_of(receive: Receive) -> None:
    """Return when the reader has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _names(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
