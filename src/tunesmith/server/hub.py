"""Filesets for programs that know Hugging Face's hub: `HF_ENDPOINT={base}/apis/files/v2/hf`, repository `ws/fileset`.

Read only. The same routes serve models and data sets, since a fileset may be either.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, ParamSpec
from urllib.parse import parse_qs

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse

from tunesmith.api import paths
from tunesmith.api.hub import HubFile, HubRepository
from tunesmith.control.hub import MAIN, Entry, EntryMissing, Folder, Repository, RepositoryMissing, RevisionMissing, oid
from tunesmith.errors import BadRequest, NotFound
from tunesmith.refs import Ref
from tunesmith.server.downloads import download
from tunesmith.server.filesets import READS
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("hub")

LARGE_FILE_BYTES = 10 << 20
"""From here on a file is shown as a hub shows large files, with its sha256."""
POINTER_BYTES = 134
PATHS_AT_ONCE = 1000

KINDS = ("models", "datasets")
P = ParamSpec("P")


async def known_kind(kind: str) -> None:
    """NotFound for what a fileset is never shown as."""
    if kind not in KINDS:
        raise NotFound(f"'{kind[:80]}' is not one of {', '.join(KINDS)}")


ANY_KIND = [Depends(known_kind)]


def refusals(handler: Callable[P, Awaitable[Response]]) -> Callable[P, Awaitable[Response]]:
    """Say what is missing in the way that the hub's own clients understand."""

    @wraps(handler)
    async def handled(*args: P.args, **kwargs: P.kwargs) -> Response:
        try:
            return await handler(*args, **kwargs)
        except (RepositoryMissing, RevisionMissing, EntryMissing) as error:
            text = "".join(each if each.isascii() and each.isprintable() else "?" for each in error.message)
            headers = {"x-error-code": error.code, "x-error-message": text}
            return JSONResponse({"detail": error.message, "error": error.message}, error.status, headers=headers)

    return handled


@router.get(paths.HUB_MODEL, dependencies=ANY_KIND, response_model=HubRepository)
@refusals
async def repository(workspace: str, name: str, house: House) -> Response:
    """What the repository is, and its files."""
    return _info(await house.hub.repository(Ref(workspace, name)))


@router.get(paths.HUB_REVISION, dependencies=ANY_KIND, response_model=HubRepository)
@refusals
async def repository_at(workspace: str, name: str, revision: str, house: House) -> Response:
    """The same, at a revision."""
    return _info(await house.hub.repository(Ref(workspace, name), revision))


@router.get(paths.HUB_TREE, dependencies=ANY_KIND)
@router.get(paths.HUB_TREE + "/{path:path}", dependencies=ANY_KIND)
@refusals
async def tree(
    workspace: str,
    name: str,
    revision: str,
    house: House,
    path: str = "",
    recursive: bool = False,
    expand: bool = False,
) -> Response:
    """The files and directories of a directory; `recursive` goes below it."""
    found = await house.hub.repository(Ref(workspace, name), revision)
    return _entries(found, found.entries(path, recursive=recursive), expand=expand)


@router.post(paths.HUB_PATHS, dependencies=ANY_KIND)
@refusals
async def paths_info(workspace: str, name: str, revision: str, request: Request, house: House) -> Response:
    """The files and directories of these paths (JSON or form: `paths`, `expand`); unknown ones are left out."""
    wanted, expand = _asked(await request.body(), request.headers.get("content-type", ""))
    found = await house.hub.repository(Ref(workspace, name), revision)
    entries = [entry for path in wanted if (entry := found.entry(path))]
    return _entries(found, entries, expand=expand)


async def _file(workspace: str, name: str, revision: str, path: str, request: Request, house: House) -> Response:
    found = await house.hub.repository(Ref(workspace, name), revision)
    opened = house.hub.open(found, path)
    tag = opened.file.digest or oid(opened.file)
    linked = {"x-linked-etag": f'"{tag}"', "x-linked-size": str(opened.file.size)}
    headers = {"x-repo-commit": found.revision, **linked}
    return download(request, opened, house.filesets.stream, headers, tag)


@router.get(paths.HUB_FILE.replace("{path}", "{path:path}"), response_class=Response, responses=READS)
@refusals
async def file(workspace: str, name: str, revision: str, path: str, request: Request, house: House) -> Response:
    """The bytes of a file, whole or the part that a Range header asks for."""
    return await _file(workspace, name, revision, path, request, house)


@router.head(paths.HUB_FILE.replace("{path}", "{path:path}"), response_class=Response, responses=READS)
@refusals
async def file_facts(workspace: str, name: str, revision: str, path: str, request: Request, house: House) -> Response:
    """Size, tag and revision of a file."""
    return await _file(workspace, name, revision, path, request, house)


@router.get(paths.HUB_DATASET_FILE.replace("{path}", "{path:path}"), response_class=Response, responses=READS)
@refusals
async def dataset_file(workspace: str, name: str, revision: str, path: str, request: Request, house: House) -> Response:
    """The same, where a hub has its data sets."""
    return await _file(workspace, name, revision, path, request, house)


@router.head(paths.HUB_DATASET_FILE.replace("{path}", "{path:path}"), response_class=Response, responses=READS)
@refusals
async def dataset_file_facts(
    workspace: str, name: str, revision: str, path: str, request: Request, house: House
) -> Response:
    """The same, where a hub has its data sets."""
    return await _file(workspace, name, revision, path, request, house)


def _info(found: Repository) -> Response:
    described = HubRepository(
        short_id=found.revision[:24],
        id=str(found.ref),
        model_id=str(found.ref),
        author=found.ref.workspace,
        sha=found.revision,
        last_modified=_moment(found),
        siblings=[HubFile(rfilename=file.path, size=file.size, blob_id=oid(file)) for file in found.snapshot.files],
    )
    headers = {"x-repo-commit": found.revision}
    return Response(described.model_dump_json(by_alias=True), media_type="application/json", headers=headers)


def _entries(found: Repository, entries: list[Entry], *, expand: bool) -> Response:
    last = {"id": found.revision, "title": f"{MAIN} of {found.ref}", "date": _moment(found)}
    shown = [{**_entry(entry), **({"lastCommit": last} if expand else {})} for entry in entries]
    return JSONResponse(shown, headers={"x-repo-commit": found.revision})


def _entry(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, Folder):
        return {"type": "directory", "oid": entry.oid, "size": 0, "path": entry.path}
    shown = {"type": "file", "oid": oid(entry), "size": entry.size, "path": entry.path}
    if entry.digest and entry.size >= LARGE_FILE_BYTES:
        shown["lfs"] = {"oid": entry.digest, "size": entry.size, "pointerSize": POINTER_BYTES}
    return shown


def _moment(found: Repository) -> str:
    return found.changed_at.isoformat(timespec="milliseconds") + "Z"


def _asked(body: bytes, kind: str) -> tuple[list[str], bool]:
    """The paths of a paths-info request, and whether it wants them expanded; BadRequest for anything else."""
    try:
        if kind.startswith("application/json"):
            given = json.loads(body)
            wanted, expand = given["paths"], given.get("expand", False)
        else:
            form = parse_qs(body.decode(), keep_blank_values=True)
            wanted, expand = form["paths"], form.get("expand", ["false"])[0].lower() in ("true", "1")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequest("paths: send a list of paths, as JSON or as form fields `paths`") from None
    if not isinstance(wanted, list) or not all(isinstance(path, str) for path in wanted):
        raise BadRequest("paths: must be a list of texts")
    if len(wanted) > PATHS_AT_ONCE:
        raise BadRequest(f"paths: {len(wanted)} paths; ask for at most {PATHS_AT_ONCE} at once")
    return wanted, bool(expand)
