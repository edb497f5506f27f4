"""Parts of files over HTTP: Range, redirects, streams that are cut; for sources that speak it.

httpx drops the Authorization header where a redirect leads to another host, so a token never reaches a storage's CDN.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from tunesmith.api.filesets import RemoteStorage
from tunesmith.control.sources.base import CHUNK, Busy, Changed, Interrupted, changed, unreachable
from tunesmith.errors import TunesmithError
from tunesmith.store.filesets import StoredFile

Refusal = Callable[[httpx.Response], TunesmithError]
"""What to raise for a response of 400 to 499."""


async def read(
    http: httpx.AsyncClient,
    url: str,
    headers: Mapping[str, str],
    storage: RemoteStorage,
    file: StoredFile,
    start: int,
    stop: int,
    refusal: Refusal,
) -> AsyncIterator[bytes]:
    """The bytes `start` to `stop` behind an address, in chunks of at most some MiB; one attempt."""
    sent = {**headers, "Accept-Encoding": "identity"}
    if start > 0 or stop < file.size:
        sent["Range"] = f"bytes={start}-{stop - 1}"
    try:
        async with http.stream("GET", url, headers=sent) as response:
            skip = _skipped(response, storage, file, start, refusal)
            async for chunk in _gathered(response, skip, stop - start):
                yield chunk
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Interrupted(unreachable(storage, reason(error))) from None


def check(storage: RemoteStorage, response: httpx.Response, refusal: Refusal) -> None:
    """Raise unless the response is a success: Busy, Interrupted, or what the source makes of it."""
    status = response.status_code
    if status < 300:
        return
    if status in (429, 503):
        raise Busy(unreachable(storage, f"it is busy ({status})"), retry_after(response.headers))
    if 400 <= status < 500:
        raise refusal(response)
    raise Interrupted(unreachable(storage, f"it answered {status}"))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or a date; None without one."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def reason(error: Exception) -> str:
    """What happened, without addresses: a redirect's may be signed."""
    match error:
        case httpx.ConnectError():
            return "no connection"
        case httpx.TimeoutException():
            return "no answer in time"
        case httpx.TooManyRedirects():
            return "too many redirects"
        case httpx.RemoteProtocolError() | httpx.ReadError():
            return "the connection was cut"
        case _:
            return type(error).__name__


def _skipped(response: httpx.Response, storage: RemoteStorage, file: StoredFile, start: int, refusal: Refusal) -> int:
    """How many bytes of the body come before `start`; Changed when the file has another length than was listed."""
    if response.status_code == 416:
        raise Changed(changed(file, f"it has no byte {start:,}"))
    check(storage, response, refusal)
    if response.status_code != 206:
        length = response.headers.get("content-length")
        if length is not None and int(length) != file.size:
            raise Changed(changed(file, f"it has {int(length):,} bytes, not {file.size:,}"))
        return start
    part, _, total = response.headers.get("content-range", "").removeprefix("bytes ").partition("/")
    if total.isdigit() and int(total) != file.size:
        raise Changed(changed(file, f"it has {int(total):,} bytes, not {file.size:,}"))
    first = part.partition("-")[0]
    if not first.isdigit() or int(first) > start:
        raise Interrupted(unreachable(storage, f"it answered a Range with '{part[:40]}'"))
    return start - int(first)


async def _gathered(response: httpx.Response, skip: int, wanted: int) -> AsyncIterator[bytes]:
    """The body after its first `skip` bytes, at most `wanted`, in large chunks; what came before a cut is given too."""
    held = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            part = chunk[skip:]
            skip -= len(chunk) - len(part)
            held += part[:wanted]
            wanted -= len(part[:wanted])
            if len(held) >= CHUNK:
                yield bytes(held)
                held.clear()
            if wanted <= 0:
                break
    except httpx.HTTPError:
        if held:
            yield bytes(held)
        raise
    if held:
        yield bytes(held)
