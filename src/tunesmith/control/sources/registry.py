"""All remote storages: which source reads which, from which addresses, with whose secrets, tried how often.

An address is checked against the allow-list at each use, secrets are looked up, and what may help is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx

from tunesmith.api.filesets import HuggingFaceStorage, NgcStorage, RemoteStorage, S3Storage
from tunesmith.control.sources.base import (
    Busy,
    Changed,
    Interrupted,
    Pinned,
    Secrets,
    Source,
    address_of,
    changed,
    unreachable,
)
from tunesmith.errors import BadRequest, NotFound, TunesmithError, Upstream
from tunesmith.refs import Ref
from tunesmith.settings import Settings
from tunesmith.store.filesets import StoredFile

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""Failures in a row, without a byte between them, until a read is given up."""
PAUSE_SECONDS = 0.25
"""Before the second attempt half a second, then twice as long each time."""
LONGEST_PAUSE_SECONDS = 30.0
"""A storage that asks us to come back later than this is called unavailable."""
PIN_SECONDS = 120.0
"""Time to look a repository up and list it."""
PATH_LIMIT = 1024


class Tokens(Protocol):
    """Where the values of secrets come from."""

    async def value(self, ref: Ref) -> str:
        """The value; NotFound without the secret."""
        ...


class Sources:
    """All remote storages."""

    def __init__(self, settings: Settings, tokens: Tokens) -> None:
        self.settings = settings
        self.tokens = tokens
        self._http: httpx.AsyncClient | None = None
        self._known: dict[str, Source] = {}

    async def pin(self, workspace: str, storage: RemoteStorage) -> Pinned:
        """The storage with its version resolved, and its files. Secrets are looked up in `workspace`.

        BadRequest: the address is not allowed, a secret is missing, access was denied, or there is no such repository
        or version. Upstream: it cannot be reached. Unavailable: it is busy.
        """
        storage = self._at_its_address(storage)
        secrets = await self.secrets(workspace, storage)
        source = self._source(storage)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with asyncio.timeout(PIN_SECONDS):
                    pinned = await source.pin(storage, secrets)
            except TimeoutError:
                raise Upstream(unreachable(storage, f"no answer within {PIN_SECONDS:g} s")) from None
            except Busy as busy:
                if attempt == ATTEMPTS:
                    raise
                await _pause(busy, attempt)
            else:
                for file in pinned.files:
                    _check_path(file.path)
                return pinned
        raise AssertionError("unreachable")

    async def read(
        self, workspace: str, storage: RemoteStorage, file: StoredFile, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes `start` to `stop` (None = the end) of a file, in chunks; goes on where a stream was cut.

        Changed, when the file is not what was listed; else as `pin`.
        """
        stop = file.size if stop is None else min(stop, file.size)
        self._check_address(storage)
        secrets = await self.secrets(workspace, storage)
        source = self._source(storage)
        failures = 0
        while start < stop:
            try:
                async with aclosing(source.read(storage, secrets, file, start, stop)) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        if start + len(chunk) > stop:
                            raise Changed(changed(file, "it is longer than was listed"))
                        start += len(chunk)
                        failures = 0
                        yield chunk
                if start < stop:
                    raise Interrupted(unreachable(storage, f"the stream of '{file.path}' ended early"))
            except (Interrupted, Busy) as error:
                failures += 1
                if failures == ATTEMPTS:
                    raise
                log.warning("%s; trying again at byte %d", error.message, start)
                await _pause(error, failures)

    async def secrets(self, workspace: str, storage: RemoteStorage) -> Secrets:
        """The values of the secrets that a storage names; BadRequest when one is missing or cannot be a token."""
        values = {}
        for name in ("token_secret", "api_key_secret", "access_key_id_secret", "secret_access_key_secret"):
            if given := getattr(storage, name, None):
                ref = Ref.parse(given, workspace, f"storage.{name}")
                try:
                    value = (await self.tokens.value(ref)).strip()
                except NotFound:
                    raise BadRequest(
                        f"Secret not found: Secret '{ref}' not found (storage.{name}); create it with POST /secrets"
                    ) from None
                if not value or not all("!" <= character <= "~" for character in value):
                    raise BadRequest(f"storage.{name}: secret '{ref}' must hold one line of printable ASCII")
                values[name] = value
        return values

    async def close(self) -> None:
        """Give back connections."""
        if self._http:
            await self._http.aclose()

    def _at_its_address(self, storage: RemoteStorage) -> RemoteStorage:
        if isinstance(storage, HuggingFaceStorage):
            storage = storage.model_copy(
                update={"endpoint": (storage.endpoint or self.settings.hub_endpoint).rstrip("/")}
            )
        self._check_address(storage)
        return storage

    def _check_address(self, storage: RemoteStorage) -> None:
        """BadRequest unless an operator has allowed the address; checked at each use, since settings change."""
        address = address_of(storage)
        if address is None:  # Amazon's own
            return
        wanted = _origin(address)
        allowed = (self.settings.hub_endpoint, *self.settings.allowed_endpoints)
        if wanted is None or not any(_within(wanted, _origin(each)) for each in allowed):
            raise BadRequest(
                f"Storage host or endpoint not in allowed list: Host '{address[:200]}' is not in the allowed external "
                f"hosts list. Allowed: {', '.join(dict.fromkeys(allowed))}; an operator adds others to "
                "TUNESMITH_ALLOWED_ENDPOINTS"
            )

    def _source(self, storage: RemoteStorage) -> Source:
        """The source for a storage; its library is imported with the first use."""
        if storage.type not in self._known:
            self._known[storage.type] = self._make(storage)
        return self._known[storage.type]

    def _make(self, storage: RemoteStorage) -> Source:
        if self._http is None:
            self._http = httpx.AsyncClient(
                timeout=httpx.Timeout(60.0, connect=15.0), follow_redirects=True, max_redirects=5
            )
        match storage:
            case HuggingFaceStorage():
                from tunesmith.control.sources.huggingface import HuggingFace  # heavy, and rarely used: so not above

                return HuggingFace(self._http)
            case NgcStorage():
                from tunesmith.control.sources.ngc import Ngc

                return Ngc(self._http)
            case S3Storage():
                try:
                    from tunesmith.control.sources.s3 import S3
                except ImportError:
                    raise BadRequest(
                        "storage.type: 's3' needs the extra 's3', which this server does not have: "
                        "pip install 'tunesmith[s3]'"
                    ) from None
                return S3()


async def _pause(error: TunesmithError, failures: int) -> None:
    asked = error.seconds if isinstance(error, Busy) else None
    if asked is not None and asked > LONGEST_PAUSE_SECONDS:
        raise error
    await asyncio.sleep(min(PAUSE_SECONDS * 2.0**failures, LONGEST_PAUSE_SECONDS) if asked is None else asked)


_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class _Origin:
    scheme: str
    host: str
    port: int
    path: str


def _origin(url: str) -> _Origin | None:
    """What an address names; None for no plain http address (credentials, a query, spaces, another scheme)."""
    if not all("!" <= character <= "~" for character in url):  # urlsplit leaves out tabs and line ends
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    plain = not (parts.username or parts.password or parts.query or parts.fragment or "\\" in url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or not plain or ".." in parts.path.split("/"):
        return None
    return _Origin(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme], parts.path.rstrip("/"))


def _within(wanted: _Origin, allowed: _Origin | None) -> bool:
    if allowed is None or (wanted.scheme, wanted.host, wanted.port) != (allowed.scheme, allowed.host, allowed.port):
        return False
    return wanted.path == allowed.path or wanted.path.startswith(f"{allowed.path}/")


def _check_path(path: str) -> None:
    """BadRequest for a remote name that cannot be a file of a fileset: it would leave its directory."""
    parts = path.split("/")
    long = len(path) > PATH_LIMIT or any(len(part.encode()) > 255 for part in PurePosixPath(path).parts)
    strange = "\\" in path or any(ord(character) < 32 or ord(character) == 127 for character in path)
    if long or strange or any(part in ("", ".", "..") for part in parts):
        raise BadRequest(
            f"storage: the remote file {path[:80]!r} cannot be part of a fileset: a path has at most {PATH_LIMIT} "
            "characters, no empty part, no '.' or '..', no backslash or control character; rename it or choose a "
            "narrower prefix"
        )
