"""The bytes of an upload, a chunk at a time as they come in: raw, or the part `file` of a multipart form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from tunesmith.errors import BadRequest, TooSlow

PATIENCE_SECONDS: Final = 10.0
"""Without a byte."""
PART: Final = b"file"
LENGTH_DIGITS: Final = 18


def body_of(request: Request) -> tuple[AsyncIterator[bytes], int | None]:
    """The uploaded bytes, and how many were announced; None when that is not known.

    Reading raises TooSlow when nothing comes for `PATIENCE_SECONDS`, and BadRequest for a body that is cut off, or a
    form that is broken or has no part `file`.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    chunks = _patient(request)
    if kind != b"multipart/form-data":
        return chunks, _announced(request)
    boundary = options.get(b"boundary")
    if not boundary:
        raise BadRequest("Content-Type multipart/form-data needs a boundary; or send the raw bytes")
    return _part(chunks, boundary), None


def _announced(request: Request) -> int | None:
    given = request.headers.get("content-length", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) <= LENGTH_DIGITS else None


async def _patient(request: Request) -> AsyncIterator[bytes]:
    """The chunks of the body. The clock stands still while they are worked on."""
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                chunk = await anext(chunks, b"")
        except TimeoutError:
            raise TooSlow(f"no data for {PATIENCE_SECONDS:g} s; nothing was stored, send the file again") from None
        except ClientDisconnect:
            raise BadRequest("the upload was cut off; nothing was stored, send the file again") from None
        if not chunk:
            return
        yield chunk


class _Form:
    """Follows a multipart form and collects the bytes of its part `file`."""

    def __init__(self, boundary: bytes) -> None:
        self.found = False
        self.ended = False
        self.bytes: list[bytes] = []
        self._inside = False
        self._field = b""
        self._value = b""
        self._name: bytes | None = None
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_end": self._end,
            },
        )

    def _begin(self) -> None:
        self._name, self._inside = None, False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name")
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        if self._name != PART or self.found:
            shown = (self._name or b"").decode("utf-8", "replace")[:80]
            raise BadRequest(f"a multipart upload has one part, 'file'; found '{shown}' too. Or send the raw bytes")
        self.found = self._inside = True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self.bytes.append(data[start:end])

    def _end(self) -> None:
        self.ended = True


async def _part(chunks: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[bytes]:
    try:
        form = _Form(boundary)
        async for chunk in chunks:
            form.parser.write(chunk)
            for piece in form.bytes:
                yield piece
            form.bytes.clear()
    except FormParserError as error:
        raise BadRequest(f"the multipart body cannot be read: {error}; or send the raw bytes") from None
    if not form.found or not form.ended:
        raise BadRequest("the multipart body ends without a whole part 'file'; nothing was stored, send it again")
