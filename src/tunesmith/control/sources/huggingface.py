"""Repositories on a Hugging Face hub: looked up with its own library, read by Range.

The library's own downloads go to a cache of its own and cannot hand bytes through, so bytes are read from the address
that it names. A machine's own token is never used: without a secret, nobody is logged in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, NoReturn

import httpx
import huggingface_hub
from huggingface_hub import errors, hf_hub_url

from tunesmith.api.filesets import HuggingFaceStorage
from tunesmith.control.sources import web
from tunesmith.control.sources.base import Busy, Interrupted, Pinned, Secrets, unreachable
from tunesmith.errors import BadRequest, TunesmithError
from tunesmith.store.filesets import StoredFile

LOOK_UP_SECONDS = 30.0
FAILURES: Final = (errors.HTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled, OSError)  # type: ignore[attr-defined]
"""What the library raises; `HTTPError` is that of the HTTP library it uses."""
LARGE_REPOSITORY = 50_000
"""Files from which the list in a repository's facts may be cut short, so that its tree is read page by page."""


class HuggingFace:
    """Models, data sets and spaces of one hub or another."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def pin(self, storage: HuggingFaceStorage, secrets: Secrets) -> Pinned:
        """The repository at the commit that its revision means now."""
        try:
            commit, files = await asyncio.to_thread(_look_up, storage, secrets.get("token_secret"))
        except FAILURES as error:
            _explain(storage, error)
        resolved = storage.model_copy(
            update={"revision": commit, "original_revision": storage.original_revision or storage.revision}
        )
        return Pinned(resolved, tuple(files))

    async def read(
        self, storage: HuggingFaceStorage, secrets: Secrets, file: StoredFile, start: int, stop: int
    ) -> AsyncIterator[bytes]:
        """Some bytes of a file at the pinned commit."""
        url = hf_hub_url(
            storage.repo_id,
            file.path,
            repo_type=storage.repo_type,
            revision=storage.revision,
            endpoint=storage.endpoint,
        )
        headers = {"Authorization": f"Bearer {token}"} if (token := secrets.get("token_secret")) else {}

        def refusal(response: httpx.Response) -> TunesmithError:
            status = response.status_code
            return refused(storage, response.headers.get("x-error-code") or _CODES.get(status, f"it answered {status}"))

        async for chunk in web.read(self.http, url, headers, storage, file, start, stop, refusal):
            yield chunk


_CODES: Final = {401: "Unauthorized", 403: "Forbidden", 404: "EntryNotFound"}


def refused(storage: HuggingFaceStorage, code: str) -> BadRequest:
    """Why the hub does not give what was asked for, and what to do about it."""
    what = f"{storage.repo_type} '{storage.repo_id}' on {storage.endpoint}"
    with_token = f"with the token in secret '{storage.token_secret}'" if storage.token_secret else "without a token"
    renew = (
        f"check that the token in secret '{storage.token_secret}' is valid and may read it"
        if storage.token_secret
        else "if it is private, store a token with POST /secrets and name it in storage.token_secret"
    )
    match code:
        case "GatedRepo":
            message = (
                f"access to {what} is gated: accept its conditions at {_page(storage)} with your account, then set "
                f"storage.token_secret to a secret with a token of that account (asked {with_token})"
            )
        case "RepoNotFound":
            message = (
                f"{what} does not exist or is not visible {with_token}: check storage.repo_id and repo_type; {renew}"
            )
        case "RevisionNotFound":
            message = f"{what} has no revision '{storage.revision}': name a branch, tag or commit in storage.revision"
        case "EntryNotFound":
            message = f"{what} has no such file at revision '{storage.revision}' any more; make the fileset again"
        case "Unauthorized" | "Forbidden":
            message = f"{what} may not be read {with_token}: {renew}"
        case _:
            message = f"{what}: {code}"
    return BadRequest(f"Access denied or invalid storage: {message}")


def _look_up(storage: HuggingFaceStorage, token: str | None) -> tuple[str, list[StoredFile]]:
    """Blocking: the commit, and the files in it."""
    api = huggingface_hub.HfApi(endpoint=storage.endpoint, token=token or False)
    kind, where = storage.repo_type, storage.repo_id
    facts: Any = api.repo_info(
        where, repo_type=kind, revision=storage.revision, files_metadata=True, timeout=LOOK_UP_SECONDS
    )
    if not facts.sha:
        raise BadRequest(f"{kind} '{where}' on {storage.endpoint} has no commit: upload files to it first")
    listed: Iterable[Any] = facts.siblings or ()
    if facts.siblings is None or len(facts.siblings) >= LARGE_REPOSITORY:
        tree = api.list_repo_tree(where, repo_type=kind, revision=facts.sha, recursive=True)
        listed = (entry for entry in tree if isinstance(entry, huggingface_hub.RepoFile))
    return facts.sha, [_file(entry) for entry in listed]


def _file(entry: Any) -> StoredFile:
    """A file as the library shows it: in a repository's facts (`rfilename`) or in its tree (`path`)."""
    path = getattr(entry, "rfilename", None) or entry.path
    if entry.size is None:
        raise BadRequest(f"the hub does not say how long '{path}' is, so it cannot be part of a fileset")
    if entry.lfs and entry.lfs.sha256:
        return StoredFile(path, None, entry.lfs.size or entry.size, f"sha256:{entry.lfs.sha256}")
    return StoredFile(path, None, entry.size, f"git:{entry.blob_id}" if entry.blob_id else None)


def _explain(storage: HuggingFaceStorage, error: Exception) -> NoReturn:
    """Raise what the library's error means to the user; its own text may be long, and names nothing that helps."""
    match error:
        case errors.GatedRepoError():
            raise refused(storage, "GatedRepo") from None
        case errors.RepositoryNotFoundError():
            raise refused(storage, "RepoNotFound") from None
        case errors.RevisionNotFoundError():
            raise refused(storage, "RevisionNotFound") from None
        case errors.HFValidationError():
            raise BadRequest(f"storage.repo_id: '{storage.repo_id}' is no repository's name: owner/name") from None
        case errors.OfflineModeIsEnabled():
            raise Interrupted(unreachable(storage, "HF_HUB_OFFLINE is set for this server")) from None
        case errors.HfHubHTTPError(response=response):
            status = response.status_code
            if status in (429, 503):
                raise Busy(unreachable(storage, f"it is busy ({status})"), web.retry_after(response.headers)) from None
            if 400 <= status < 500:
                raise refused(storage, _CODES.get(status, f"it answered {status}")) from None
            raise Interrupted(unreachable(storage, f"it answered {status}")) from None
        case _:
            raise Interrupted(unreachable(storage, f"no connection ({type(error).__name__})")) from None


def _page(storage: HuggingFaceStorage) -> str:
    kind = "" if storage.repo_type == "model" else f"{storage.repo_type}s/"
    return f"{storage.endpoint}/{kind}{storage.repo_id}"
