"""Requests that could not be stored or answered as they are: refused before anybody works with them.

JSON as Python reads it holds more than any database or answer can: NaN, lone surrogates, NUL, numbers without end, a
thousand brackets, a million keys. Only a body that is large or whose bytes might hold such a thing is read closely.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_JSON = 10 * 1024 * 1024
"""Bytes of a request body that is not a file."""
LARGE_JSON = 256 * 1024
"""From here on a look takes milliseconds, which the event loop has not."""
DEEPEST_JSON = 64
"""Brackets within brackets."""
MOST_KEYS = 10_000
"""Of one object: each that a shape does not know is an error of its own, and a million of them take 15 seconds."""
MOST_ITEMS = 100_000
"""Of one list, for the same reason."""
LARGEST_INTEGER = 2**63 - 1
ERRORS_SHOWN = 20
LARGEST_DISCARDED = 256 * 1024 * 1024
"""Bytes of a body that is too large which are read and forgotten, so that its sender lives to read the answer."""

_READ = frozenset({b"content-type", b"content-length", b"expect"})
WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_JSON = re.compile(rb"\s*application/([\w.+-]+\+)?json\s*(;.*)?", re.IGNORECASE | re.DOTALL)
_SUSPECT = re.compile(rb"\d{19}|\d[eE]\+?\d{3}|NaN|Infinity|\\u[dD][89a-fA-F]|\\u0000|\x00")
_UPLOAD = re.compile(r"/apis/files/v2/workspaces/[^/]+/filesets/[^/]+/-/")
_FORMS = re.compile(r"/apis/files/v2/hf/")
"""Hugging Face's library asks with form fields."""
SECRETS = "/apis/secrets/"
"""Nothing that is sent to below here is repeated."""

Problem = dict[str, Any]
Where = tuple[str | int, ...]


class Body:
    """ASGI middleware that reads JSON bodies, within bounds, and refuses what no JSON text may hold."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its whole body, or answer 400, 413, 415 or 422 with the reason."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if reason := _unreadable_address(scope):
            await _refuse(400, reason)(scope, receive, send)
        elif scope["method"] not in WITH_BODY or _is_upload(scope):
            await self.app(scope, receive, send)
        else:
            await self._with_body(scope, receive, send)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {key: value for key, value in scope["headers"] if key in _READ}
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared[:20]) > LARGEST_JSON:
            body = None
            if b"expect" not in headers:
                await _discard(receive)
        else:
            body = await _whole(receive)
        if body is None:
            reason = f"The body is larger than {LARGEST_JSON} bytes; files are uploaded into a fileset, with PUT"
            await _refuse(413, reason)(scope, receive, send)
            return
        kind = headers.get(b"content-type", b"")
        if body and not _JSON.fullmatch(kind) and not _FORMS.match(scope["path"]):
            reason = f"Content-Type '{kind.decode('latin-1')[:80]}' is not understood here: send application/json"
            await _refuse(415, reason)(scope, receive, send)
            return
        large = len(body) > LARGE_JSON
        if problems := await asyncio.to_thread(problems_of, body) if large else problems_of(body):
            if scope["path"].startswith(SECRETS):
                problems = [each | {"msg": _UNSAID.get(each["type"], each["msg"])} for each in problems]
            await JSONResponse({"detail": problems}, 422)(scope, receive, send)
            return
        await self.app(scope, _again(body, receive), send)


def problems_of(body: bytes) -> list[Problem]:
    """What is unlawful in a JSON text, as a 422 lists it; syntax errors are left to whoever parses it."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            return [_problem("json_invalid", (error.start,), "The body is not UTF-8")]
    brackets = body.count(b"[") + body.count(b"{")
    if brackets <= DEEPEST_JSON and len(body) <= LARGE_JSON and not _SUSPECT.search(body):
        return []
    try:
        tree = json.loads(body, parse_constant=_Odd, parse_int=_integer, parse_float=_decimal)
    except ValueError:
        nul = body.find(b"\0")
        return [_problem("json_invalid", (nul,), "NUL bytes are not JSON")] if nul >= 0 else []
    except RecursionError:
        return [_TOO_DEEP]
    found = []
    for problem in _look(tree, ()):
        found.append(problem)
        if len(found) == ERRORS_SHOWN:
            break
    return found


class _Odd(str):
    """A number that we do not take, as it was written."""

    __slots__ = ()


def _integer(text: str) -> int | _Odd:
    return _Odd(text) if len(text) > 20 or abs(int(text)) > LARGEST_INTEGER else int(text)


def _decimal(text: str) -> float | _Odd:
    number = float(text)
    return _Odd(text) if number in (float("inf"), float("-inf")) else number


def _look(value: Any, where: Where) -> Iterator[Problem]:
    """The problems of a value and of everything in it, down to where it is too deep."""
    if isinstance(value, list | dict):
        yield from _look_into(value, where)
    elif isinstance(value, _Odd):
        shown = value if len(value) <= 40 else f"{value[:40]}..."
        if value.lstrip("-").isdigit():
            message = f"{shown} is beyond 64 bits: at most {LARGEST_INTEGER} either way"
            yield _problem("int_parsing_size", where, message)
        else:
            yield _problem("finite_number", where, f"{shown} is not a finite number")
    elif isinstance(value, str) and (reason := _bad_text(value)):
        yield _problem("string_unicode", where, f"The text {reason}")


def _look_into(value: list[Any] | dict[str, Any], where: Where) -> Iterator[Problem]:
    most, what = (MOST_KEYS, "keys in an object") if isinstance(value, dict) else (MOST_ITEMS, "items in a list")
    if len(where) >= DEEPEST_JSON:
        yield _TOO_DEEP
    elif len(value) > most:
        yield _problem("too_long", where, f"{len(value)} {what}; at most {most} are taken")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _look(item, (*where, index))
    else:
        for key, item in value.items():
            if reason := _bad_text(key):
                yield _problem("string_unicode", where, f"A key {reason}")
            else:
                yield from _look(item, (*where, key))


def _bad_text(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character (\\u0000)"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds half of a surrogate pair (\\u{ord(text[error.start]):04x}) at character {error.start}"
    return None


def _problem(kind: str, where: Where, message: str) -> Problem:
    return {"type": kind, "loc": ["body", *where], "msg": message, "input": None}


_TOO_DEEP = _problem("recursion_loop", (), f"More than {DEEPEST_JSON} objects and lists within each other")
_UNSAID = {
    "int_parsing_size": f"A number beyond 64 bits: at most {LARGEST_INTEGER} either way",
    "finite_number": "Not a finite number",
}
"""What is said of a number that must not be repeated."""


def _unreadable_address(scope: Scope) -> str | None:
    """Why a path or query cannot be understood; None when it can."""
    path, query = scope["path"], scope.get("query_string", b"")
    if "\0" in path:
        return "The path holds a NUL character (%00)"
    if "\ufffd" in path and not _is_utf8(scope.get("raw_path", b"")):
        return "The path is not UTF-8 once its percent signs are read"
    if b"%" in query:
        if b"%00" in query:
            return "The query holds a NUL character (%00)"
        if not _is_utf8(query):
            return "The query is not UTF-8 once its percent signs are read"
    return None


def _is_utf8(encoded: bytes) -> bool:
    try:
        unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_upload(scope: Scope) -> bool:
    return scope["method"] == "PUT" and _UPLOAD.match(scope["path"]) is not None


async def _whole(receive: Receive) -> bytes | None:
    """The body; None when it grows too large."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > LARGEST_JSON:
            if message.get("more_body", False):
                await _discard(receive)
            return None
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _discard(receive: Receive) -> None:
    """Read the rest of a body, up to a bound, and keep none of it."""
    size = 0
    while size <= LARGEST_DISCARDED:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, then whatever comes."""
    waiting = True

    async def again() -> Message:
        nonlocal waiting
        if waiting:
            waiting = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def _refuse(status: int, reason: str) -> JSONResponse:
    """What was refused unread must not be taken for the next request: 413 ends the connection."""
    return JSONResponse({"detail": reason}, status, {"connection": "close"} if status == 413 else None)
