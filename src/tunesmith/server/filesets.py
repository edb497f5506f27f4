"""Filesets and their files over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request, Response

from tunesmith.api import paths
from tunesmith.api.base import Items, Page, PageRequest
from tunesmith.api.filesets import (
    FILESETS,
    Collected,
    CollectGarbage,
    CreateFileset,
    Fileset,
    FilesetFile,
    UpdateFileset,
)
from tunesmith.server.downloads import BYTES, download
from tunesmith.server.paging import page_request
from tunesmith.server.routes import refusal, routes_of
from tunesmith.server.services import House
from tunesmith.server.uploads import body_of

router = routes_of("filesets")

Asked = Annotated[PageRequest, Depends(page_request(FILESETS))]

FILE = paths.FILE.replace("{path}", "{path:path}")
RAW: dict[str, Any] = {BYTES: {"schema": {"type": "string", "format": "binary"}}}
FORM: dict[str, Any] = {
    "schema": {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
}
UPLOAD = {"requestBody": {"content": {**RAW, "multipart/form-data": FORM}}}
READS: dict[int | str, dict[str, Any]] = {
    200: {"content": RAW, "description": "The bytes."},
    206: {"content": RAW, "description": "The bytes that the Range header asks for, of its first range."},
    304: {"description": "The reader has these bytes."},
    416: refusal("No byte of that range exists."),
}
SLOW: dict[int | str, dict[str, Any]] = {408: refusal("No data for 10 seconds.")}


@router.post(paths.FILESETS)
async def create_fileset(workspace: str, asked: CreateFileset, house: House) -> Fileset:
    """A new fileset: empty, or a view of a remote storage. Answers 200, as the wire has it."""
    return await house.filesets.create(workspace, asked)


@router.get(paths.FILESETS, response_model_exclude_none=True)
async def list_filesets(workspace: str, asked: Asked, house: House) -> Page[Fileset]:
    """One page of a workspace's filesets."""
    return await house.filesets.page(workspace, asked)


@router.get(paths.FILESET)
async def get_fileset(workspace: str, name: str, house: House) -> Fileset:
    """One fileset."""
    return await house.filesets.get(workspace, name)


@router.patch(paths.FILESET)
async def update_fileset(workspace: str, name: str, asked: UpdateFileset, house: House) -> Fileset:
    """Replace the fields that are given; null is what a new fileset has."""
    return await house.filesets.update(workspace, name, asked)


@router.delete(paths.FILESET)
async def delete_fileset(workspace: str, name: str, house: House) -> Fileset:
    """Take the fileset and its files out; jobs and deployments that started with them go on. Answers what it was."""
    return await house.filesets.delete(workspace, name)


@router.get(paths.FILESET_FILES)
async def list_files(
    workspace: str, name: str, house: House, path: str = "", include_cache_status: bool = False
) -> Items[FilesetFile]:
    """The files under a directory, or the one of that path; all of them without a path."""
    found = await house.filesets.files(workspace, name, path, with_cache_status=include_cache_status)
    return Items[FilesetFile](data=found)


@router.put(FILE, openapi_extra=UPLOAD, responses=SLOW)
async def upload_file(workspace: str, name: str, path: str, request: Request, house: House) -> FilesetFile:
    """Store the request's raw bytes, or its part `file`, as `path`; visible only when whole."""
    chunks, length = body_of(request)
    return await house.filesets.upload(workspace, name, path, chunks, length)


@router.get(FILE, response_class=Response, responses=READS)
async def download_file(workspace: str, name: str, path: str, request: Request, house: House) -> Response:
    """The bytes of a file, whole or the part that a Range header asks for."""
    return download(request, await house.filesets.open(workspace, name, path), house.filesets.stream)


@router.head(FILE, response_class=Response, responses=READS)
async def file_facts(workspace: str, name: str, path: str, request: Request, house: House) -> Response:
    """Size and digest of a file."""
    return download(request, await house.filesets.open(workspace, name, path), house.filesets.stream)


@router.delete(FILE)
async def delete_file(workspace: str, name: str, path: str, house: House) -> FilesetFile:
    """Take a file out of its fileset."""
    return await house.filesets.remove(workspace, name, path)


@router.post(paths.COLLECT_GARBAGE)
async def collect_garbage(asked: CollectGarbage, house: House) -> Collected:
    """Delete what nothing needs any more, or count it; see `docs/decisions/0012-garbage-and-backups.md`."""
    return await house.garbage.collect(dry_run=asked.dry_run)
