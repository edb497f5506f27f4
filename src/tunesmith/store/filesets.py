"""Filesets and the files in them; a file's bytes are a blob, named by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, delete, or_, select
from sqlalchemy.dialects.sqlite import insert as upsert

from tunesmith.api.base import Page, PageRequest, paged
from tunesmith.api.filesets import CreateFileset, Fileset, FilesetFile, LocalStorage
from tunesmith.api.paths import FILESETS
from tunesmith.errors import NotFound
from tunesmith.refs import Ref, check_name
from tunesmith.store.ids import now
from tunesmith.store.rows import Named
from tunesmith.store.tables import files, filesets


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a fileset, by its bytes."""

    path: str
    digest: str
    """sha256, lower-case hex."""
    size: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a fileset holds at one moment; never changes, since blobs never do."""

    fileset: str
    """`workspace/name`."""
    files: tuple[StoredFile, ...]
    chat_template: str
    """From the fileset's metadata; "" when it has none."""

    @property
    def digest(self) -> str:
        """Of all paths and bytes, order-free: equal snapshots have equal digests."""
        lines = sorted(f"{file.digest} {file.path}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """For a job's row."""
        return {"fileset": self.fileset, "files": [[file.path, file.digest, file.size] for file in self.files]}


def snapshot_files(stored: Mapping[str, Any]) -> tuple[StoredFile, ...]:
    """The files of a snapshot that `as_json` wrote."""
    return tuple(StoredFile(*file) for file in stored["files"])


class Filesets(Named):
    """Named collections of files."""

    table = filesets
    kind = "fileset"
    missing = "Fileset '{name}' not found in workspace '{workspace}'"
    twin = "Fileset '{workspace}/{name}' already exists"

    def create(self, workspace: str, asked: CreateFileset) -> Fileset:
        """A new fileset without files."""
        row = self.insert(
            workspace,
            check_name(asked.name),
            description=asked.description or "",
            purpose=asked.purpose,
            metadata=asked.metadata.model_dump(mode="json"),
            custom_fields=asked.custom_fields,
        )
        return _fileset(row)

    def get(self, workspace: str, name: str) -> Fileset:
        """The fileset; NotFound without it."""
        return _fileset(self.row(workspace, name))

    def page(self, workspace: str, asked: PageRequest) -> Page[Fileset]:
        """One page of a workspace's filesets."""
        rows, total = self.page_rows(workspace, asked)
        return paged([_fileset(row) for row in rows], total, asked)

    def put(self, workspace: str, name: str, path: str, digest: str, size: int) -> FilesetFile:
        """Make `path` these bytes, whatever it was before."""
        row = self.row(workspace, name)
        values = {"digest": digest, "size": size, "created_at": now()}
        statement = upsert(files).values(fileset_id=row["id"], path=path, **values)
        self.connection.execute(statement.on_conflict_do_update(index_elements=["fileset_id", "path"], set_=values))
        return _file(workspace, name, path, size)

    def remove(self, workspace: str, name: str, path: str) -> FilesetFile:
        """Take `path` out; its bytes stay as long as anything refers to them."""
        file = self.file(workspace, name, path)
        row = self.row(workspace, name)
        self.connection.execute(delete(files).where(files.c.fileset_id == row["id"], files.c.path == path))
        return _file(workspace, name, file.path, file.size)

    def file(self, workspace: str, name: str, path: str) -> StoredFile:
        """One file; NotFound without it."""
        row = self.row(workspace, name)
        query = select(files).where(files.c.fileset_id == row["id"], files.c.path == path)
        file = self.connection.execute(query).mappings().one_or_none()
        if file is None:
            raise NotFound(f"File '{path}' not found in fileset '{workspace}/{name}'")
        return StoredFile(file["path"], file["digest"], file["size"])

    def list_files(self, workspace: str, name: str, path: str = "") -> list[FilesetFile]:
        """All files under the directory `path`, or the one file of that path; nothing for an unknown path."""
        query = select(files).where(files.c.fileset_id == self.row(workspace, name)["id"]).order_by(files.c.path)
        if path := path.strip("/"):
            query = query.where(or_(files.c.path == path, files.c.path.startswith(f"{path}/", autoescape=True)))
        rows = self.connection.execute(query).mappings()
        return [_file(workspace, name, row["path"], row["size"]) for row in rows]

    def snapshot(self, ref: Ref) -> Snapshot:
        """What the fileset holds now; NotFound without it."""
        row = self.row(ref.workspace, ref.name)
        query = select(files).where(files.c.fileset_id == row["id"]).order_by(files.c.path)
        held = self.connection.execute(query).mappings()
        calling = ((row["metadata"] or {}).get("model") or {}).get("tool_calling") or {}
        return Snapshot(
            fileset=str(ref),
            files=tuple(StoredFile(file["path"], file["digest"], file["size"]) for file in held),
            chat_template=calling.get("chat_template") or "",
        )


def _fileset(row: RowMapping) -> Fileset:
    where = FILESETS.format(workspace=row["workspace"]) + f"/{row['name']}"
    return Fileset.model_validate({**row, "storage": LocalStorage(path=where), "project": ""})


def _file(workspace: str, name: str, path: str, size: int) -> FilesetFile:
    where = FILESETS.format(workspace=workspace) + f"/{name}/-/{path}"
    return FilesetFile(
        file_ref=f"{workspace}/{name}#{path}", file_url=where, path=path, size=size, cache_status="not_cacheable"
    )
