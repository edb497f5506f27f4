"""Versions of models and resources in the NGC catalogue, by its REST API."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import httpx

from tunesmith.api.filesets import NgcStorage
from tunesmith.control.sources import web
from tunesmith.control.sources.base import Interrupted, Pinned, Secrets, unreachable
from tunesmith.errors import BadRequest, TunesmithError
from tunesmith.store.filesets import StoredFile

PAGE_SIZE = 1000
MOST_PAGES = 1000

AUTHN: Final = {"https://api.ngc.nvidia.com": "https://authn.nvidia.com/token"}
"""Where a key is exchanged for a token; a host of one's own answers at /token itself."""
PERSONAL_KEY = "nvapi-"
"""How a key begins that is a token by itself."""


class _Words(NamedTuple):
    """What the API calls a kind of thing, in addresses and in answers."""

    collection: str
    thing: str


WORDS: Final = {"model": _Words("models", "model"), "resource": _Words("resources", "recipe")}


class Ngc:
    """The catalogue behind one host or another."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self._tokens: dict[tuple[str, str, str, str], tuple[str, float]] = {}
        """By host, organisation, team and key: a token, and until when it holds (monotonic)."""

    async def pin(self, storage: NgcStorage, secrets: Secrets) -> Pinned:
        """The version that was asked for, or the latest, and its files."""
        words = WORDS[storage.target_type]
        version = storage.version
        if version is None:
            found = await self._get(storage, secrets, "")
            version = (found.get(words.thing) or {}).get("latestVersionIdStr")
            if not version:
                raise BadRequest(f"{_what(storage)} has no version yet: upload one, or name another storage.target")
        resolved = storage.model_copy(
            update={"version": version, "original_version": storage.original_version or storage.version}
        )
        state = await self._get(resolved, secrets, f"/versions/{quote(version, safe='')}")
        status = (state.get(f"{words.thing}Version") or {}).get("status")
        if status not in (None, "UPLOAD_COMPLETE"):
            raise BadRequest(f"{_what(resolved)} is not complete: its status is {status}; finish its upload first")
        return Pinned(resolved, tuple(await self._files(resolved, secrets, words)))

    async def read(
        self, storage: NgcStorage, secrets: Secrets, file: StoredFile, start: int, stop: int
    ) -> AsyncIterator[bytes]:
        """Some bytes of a file of the pinned version."""
        assert storage.version is not None
        url = f"{_base(storage)}/versions/{quote(storage.version, safe='')}/files/{quote(file.path)}"
        headers = {"Authorization": f"Bearer {await self._token(storage, secrets)}"}

        def refusal(response: httpx.Response) -> TunesmithError:
            return self._refused(storage, secrets, response.status_code)

        async for chunk in web.read(self.http, url, headers, storage, file, start, stop, refusal):
            yield chunk

    async def _files(self, storage: NgcStorage, secrets: Secrets, words: _Words) -> list[StoredFile]:
        assert storage.version is not None
        found: dict[str, StoredFile] = {}
        where = f"/versions/{quote(storage.version, safe='')}/files"
        for page in range(MOST_PAGES):
            answer = await self._get(storage, secrets, where, {"page-number": page, "page-size": PAGE_SIZE})
            listed = answer.get(f"{words.thing}Files") or []
            for entry in listed:
                path = str(entry["path"]).removeprefix("/")
                found[path] = StoredFile(path, None, int(entry["sizeInBytes"]), _tag(entry.get("sha256_base64")))
            pages = (answer.get("paginationInfo") or {}).get("totalPages")
            if not listed or (page + 1 >= int(pages) if pages is not None else len(listed) < PAGE_SIZE):
                return list(found.values())
        raise BadRequest(f"{_what(storage)} has more than {MOST_PAGES * PAGE_SIZE:,} files, too many for a fileset")

    async def _get(
        self, storage: NgcStorage, secrets: Secrets, where: str, query: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {await self._token(storage, secrets)}"}
        return await self._json(storage, secrets, f"{_base(storage)}{where}", headers=headers, params=query)

    async def _token(self, storage: NgcStorage, secrets: Secrets) -> str:
        """A bearer token: the key itself, or what it is exchanged for, kept until shortly before it runs out."""
        key = secrets["api_key_secret"]
        if key.startswith(PERSONAL_KEY):
            return key
        who = (storage.host, storage.org, storage.team, key)
        token, until = self._tokens.get(who, ("", 0.0))
        if time.monotonic() < until:
            return token
        scopes = [f"group/ngc:{storage.org}"]
        if team := _team(storage):
            scopes.append(f"group/ngc:{storage.org}/{team}")
        host = storage.host.rstrip("/")
        answer = await self._json(
            storage,
            secrets,
            AUTHN.get(host, f"{host}/token"),
            params={"service": "ngc", "scope": scopes},
            auth=("$oauthtoken", key),
        )
        token = str(answer.get("token") or "")
        if not token:
            raise self._refused(storage, secrets, 401)
        lifetime = float(answer.get("expires_in") or 300)
        self._tokens[who] = (token, time.monotonic() + max(0.0, lifetime - 60))
        return token

    async def _json(self, storage: NgcStorage, secrets: Secrets, url: str, **how: Any) -> dict[str, Any]:
        try:
            response = await self.http.get(url, **how)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Interrupted(unreachable(storage, web.reason(error))) from None
        web.check(storage, response, lambda answer: self._refused(storage, secrets, answer.status_code))
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Interrupted(unreachable(storage, "it answered something that is not a JSON object"))
        return answer

    def _refused(self, storage: NgcStorage, secrets: Secrets, status: int) -> BadRequest:
        if status == 401:  # perhaps the token ran out early: the next request fetches another
            self._tokens.pop((storage.host, storage.org, storage.team, secrets["api_key_secret"]), None)
        what = _what(storage)
        key = f"the key in secret '{storage.api_key_secret}'"
        match status:
            case 401:
                message = f"{key} was refused for {what}: store a valid NGC API key with PATCH /secrets"
            case 403:
                message = f"{key} may not read {what}: give its account access, or use another key"
            case 404:
                message = (
                    f"{what} does not exist, or {key} may not see it: check org, team, target, target_type, version"
                )
            case _:
                message = f"{what}: it answered {status}"
        return BadRequest(f"Access denied or invalid storage: {message}")


def _team(storage: NgcStorage) -> str:
    return "" if storage.team in ("", "no-team") else storage.team


def _base(storage: NgcStorage) -> str:
    team = f"/team/{quote(_team(storage), safe='')}" if _team(storage) else ""
    collection = WORDS[storage.target_type].collection
    where = f"/v2/org/{quote(storage.org, safe='')}{team}/{collection}/{quote(storage.target, safe='')}"
    return f"{storage.host.rstrip('/')}{where}"


def _what(storage: NgcStorage) -> str:
    team = f"{_team(storage)}/" if _team(storage) else ""
    version = f":{storage.version}" if storage.version else ""
    return f"NGC {storage.target_type} '{storage.org}/{team}{storage.target}{version}'"


def _tag(sha256_base64: str | None) -> str | None:
    try:
        digest = base64.b64decode(sha256_base64 or "", validate=True)
    except binascii.Error:
        return None
    return f"sha256:{digest.hex()}" if len(digest) == 32 else None
