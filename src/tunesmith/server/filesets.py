"""Filesets and their files over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse

from tunesmith.api import paths
from tunesmith.api.base import Items, Page, ShortPageRequest
from tunesmith.api.filesets import CreateFileset, Fileset, FilesetFile
from tunesmith.server.services import House

router = APIRouter(tags=["filesets"])

BYTES = "application/octet-stream"
FILE = paths.FILE.replace("{path}", "{path:path}")


@router.post(paths.FILESETS)
async def create_fileset(workspace: str, asked: CreateFileset, house: House) -> Fileset:
    """A new, empty fileset. Answers 200, as the wire has it."""
    return await house.filesets.create(workspace, asked)


@router.get(paths.FILESETS, response_model_exclude_none=True)
async def list_filesets(workspace: str, asked: Annotated[ShortPageRequest, Query()], house: House) -> Page[Fileset]:
    """One page of a workspace's filesets."""
    return await house.filesets.page(workspace, asked)


@router.get(paths.FILESET)
async def get_fileset(workspace: str, name: str, house: House) -> Fileset:
    """One fileset."""
    return await house.filesets.get(workspace, name)


@router.get(paths.FILESET_FILES)
async def list_files(workspace: str, name: str, house: House, path: str = "") -> Items[FilesetFile]:
    """The files under a directory, or the one of that path."""
    return Items[FilesetFile](data=await house.filesets.files(workspace, name, path))


@router.put(FILE)
async def upload_file(workspace: str, name: str, path: str, request: Request, house: House) -> FilesetFile:
    """Store the request's raw bytes as `path`; visible only when whole."""
    return await house.filesets.upload(workspace, name, path, request.stream())


@router.get(FILE, response_class=FileResponse)
async def download_file(workspace: str, name: str, path: str, house: House) -> FileResponse:
    """The bytes of a file, whole or the part that a Range header asks for."""
    file, where = await house.filesets.open(workspace, name, path)
    return FileResponse(where, media_type=BYTES, headers={"etag": f'"{file.digest}"'})


@router.head(FILE)
async def file_facts(workspace: str, name: str, path: str, house: House) -> Response:
    """Size and digest of a file."""
    file, _ = await house.filesets.open(workspace, name, path)
    headers = {"accept-ranges": "bytes", "content-length": str(file.size), "etag": f'"{file.digest}"'}
    return Response(media_type=BYTES, headers=headers)


@router.delete(FILE)
async def delete_file(workspace: str, name: str, path: str, house: House) -> FilesetFile:
    """Take a file out of its fileset."""
    return await house.filesets.remove(workspace, name, path)
