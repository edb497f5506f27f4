"""Filesets and the files in them; a file's bytes are a blob, named by their digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Executable, RowMapping, bindparam, collate, delete, func, insert, or_, select, update

from tunesmith.api.base import Page, PageRequest
from tunesmith.api.filesets import (
    CacheStatus,
    CreateFileset,
    Fileset,
    FilesetFile,
    FilesetMetadata,
    HuggingFaceStorage,
    LocalStorage,
    NgcStorage,
    RemoteStorage,
    S3Storage,
    UpdateFileset,
)
from tunesmith.api.paths import FILESETS
from tunesmith.errors import Conflict, Forbidden, NotFound
from tunesmith.handoff.inputs import digest_of
from tunesmith.refs import Ref, check_name
from tunesmith.store.ids import now
from tunesmith.store.rows import Named, upsert
from tunesmith.store.tables import files, filesets

MARK = "service_source"
"""Custom field that names the service which made a fileset."""
REMOTE_STORAGE: TypeAdapter[HuggingFaceStorage | NgcStorage | S3Storage] = TypeAdapter(RemoteStorage)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a fileset, by its bytes."""

    path: str
    digest: str | None
    """sha256, lower-case hex; None for a remote file that has not been fetched."""
    size: int
    tag: str | None = None
    """Of a remote file: what its storage says of the content."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a fileset holds at one moment; never changes, since blobs never do."""

    fileset: str
    """`workspace/name`."""
    files: tuple[StoredFile, ...]
    chat_template: str
    """From the fileset's metadata; "" when it has none."""
    storage: RemoteStorage | None = None
    """Where files without a digest come from; None when all bytes are the platform's own."""

    @property
    def digest(self) -> str:
        """Of all paths and bytes, order-free: equal snapshots have equal digests. All bytes must be here."""
        assert all(file.digest for file in self.files), "a snapshot has a digest once all its files were fetched"
        return digest_of((file.path, str(file.digest)) for file in self.files)

    def as_json(self) -> dict[str, Any]:
        """For a job's row."""
        files = [[file.path, file.digest, file.size, file.tag] for file in self.files]
        return {
            "fileset": self.fileset,
            "files": files,
            "chat_template": self.chat_template,
            "storage": self.storage and self.storage.model_dump(mode="json"),
        }

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Snapshot:
        """What `as_json` wrote."""
        storage = stored.get("storage")
        return cls(
            fileset=stored["fileset"],
            files=tuple(StoredFile(*file) for file in stored["files"]),
            chat_template=stored.get("chat_template", ""),
            storage=storage and REMOTE_STORAGE.validate_python(storage),
        )


_STORAGE = func.coalesce(filesets.c.storage["type"].as_string(), "local")


class Filesets(Named):
    """Named collections of files."""

    table = filesets
    kind = "fileset"
    missing = "Fileset '{name}' not found in workspace '{workspace}'"
    twin = "Fileset '{workspace}/{name}' already exists"

    filterable = {
        "purpose": filesets.c.purpose,
        "storage_type": _STORAGE,
        "custom_fields": filesets.c.custom_fields,
    }

    def create(self, workspace: str, asked: CreateFileset, storage: RemoteStorage | None = None) -> Fileset:
        """A new fileset without files; `storage` is remote and pinned, None = the platform's own blobs."""
        row = self.insert(
            workspace,
            check_name(asked.name),
            description=asked.description or "",
            project=asked.project,
            purpose=asked.purpose,
            metadata=_metadata(asked.metadata),
            custom_fields=_custom_fields(asked.custom_fields),
            **({"storage": storage.model_dump(mode="json")} if storage else {}),
        )
        return _fileset(row)

    def update(self, workspace: str, name: str, asked: UpdateFileset) -> Fileset:
        """Replace the fields that were given; null is what a new fileset has. NotFound, Invalid for the project."""
        row = self.row(workspace, name)
        meant: dict[str, Any] = {
            "description": asked.description or "",
            "project": asked.project,
            "purpose": asked.purpose or "generic",
            "metadata": _metadata(asked.metadata or FilesetMetadata()),
            "custom_fields": {**_custom_fields(asked.custom_fields or {}), **_marks(row)},
        }
        return _fileset(self.change(row, **{field: meant[field] for field in asked.model_fields_set}))

    def mark(self, ref: Ref, service: str) -> None:
        """Say which of the platform's services writes the fileset's files: from now on nobody else does."""
        row = self.row(ref.workspace, ref.name)
        self.change(row, custom_fields={**(row["custom_fields"] or {}), MARK: service})

    def drop(self, workspace: str, name: str) -> Fileset:
        """Take the fileset and its files out; the bytes stay as long as anything refers to them."""
        return _fileset(self.delete(workspace, name))

    def get(self, workspace: str, name: str) -> Fileset:
        """The fileset; NotFound without it."""
        return _fileset(self.row(workspace, name))

    def page(self, workspace: str, asked: PageRequest) -> Page[Fileset]:
        """One page of a workspace's filesets."""
        return self.page_of(workspace, asked, lambda rows: [_fileset(row) for row in rows])

    def put(
        self, workspace: str, name: str, path: str, digest: str, size: int, *, by_service: bool = False
    ) -> FilesetFile:
        """Make `path` these bytes, whatever it was before; Conflict and Forbidden as `check_writable`."""
        row = self.check_writable(workspace, name, path, by_service=by_service)
        values = {"digest": digest, "size": size, "tag": None, "created_at": now()}
        self.connection.execute(self._put(), {"fileset_id": row["id"], "path": path, **values})
        return shown(workspace, name, StoredFile(path, digest, size))

    def check_writable(self, workspace: str, name: str, path: str, *, by_service: bool = False) -> RowMapping:
        """The fileset's row, for a file to be written to it; NotFound without it.

        Forbidden for what a job made, unless it is the platform itself that writes (`by_service`). Conflict when its
        files are a remote storage's, or when `path` would be a file and a directory at once.
        """
        row = self._own(workspace, name)
        if not by_service and (service := (row["custom_fields"] or {}).get(MARK)):
            raise Forbidden(
                f"Access denied: This fileset's files are immutable: job results are written by {service} jobs alone. "
                "Upload into a fileset of your own."
            )
        if other := self._in_the_way(row["id"], path):
            what = "is a directory" if other.startswith(f"{path}/") else f"lies below '{other}', which is a file"
            raise Conflict(
                f"path: '{path}' {what} in fileset '{workspace}/{name}' ('{other}' exists); delete that first or "
                "choose another path"
            )
        return row

    def relist(self, ref: Ref, listed: Iterable[StoredFile]) -> bool:
        """Make a remote fileset hold these files; bytes that are here stay known where path, tag and size are the same.

        Whether anything changed.
        """
        wanted = {file.path: file for file in listed}
        held = {file.path: file for file in self.snapshot(ref).files}
        same = {path for path, file in wanted.items() if (old := held.get(path)) and _version(old) == _version(file)}
        gone, fresh = held.keys() - same, [file for path, file in wanted.items() if path not in same]
        fileset_id, at = self.row(ref.workspace, ref.name)["id"], now()
        for path in gone:
            self.connection.execute(delete(files).where(files.c.fileset_id == fileset_id, files.c.path == path))
        rows = [
            {"fileset_id": fileset_id, "path": file.path, "size": file.size, "tag": file.tag, "created_at": at}
            for file in fresh
        ]
        if rows:
            self.connection.execute(insert(files), rows)
        return bool(gone or fresh)

    def fetched(self, ref: Ref, file: StoredFile, digest: str) -> None:
        """The bytes of a remote file are here; nothing happens when the fileset is gone or holds another version."""
        row = self.find_row(ref.workspace, ref.name)
        if row is None:
            return
        same = (files.c.path == file.path, files.c.tag.is_(None) if file.tag is None else files.c.tag == file.tag)
        where = (files.c.fileset_id == row["id"], *same, files.c.size == file.size)
        self.connection.execute(update(files).where(*where).values(digest=digest))

    def remove(self, workspace: str, name: str, path: str) -> FilesetFile:
        """Take `path` out; its bytes stay as long as anything refers to them."""
        row = self._own(workspace, name)
        file = self._file(row, path)
        self.connection.execute(delete(files).where(files.c.fileset_id == row["id"], files.c.path == path))
        return shown(workspace, name, file)

    def file(self, ref: Ref, path: str) -> tuple[StoredFile, Snapshot]:
        """One file, and a snapshot with nothing but it; NotFound without it."""
        row = self.row(ref.workspace, ref.name)
        file = self._file(row, path)
        return file, _snapshot(row, [file])

    def snapshot(self, ref: Ref, path: str = "") -> Snapshot:
        """What the fileset holds now, or of that the directory `path`, or that file. NotFound without the fileset."""
        row = self.row(ref.workspace, ref.name)
        query = select(files).where(files.c.fileset_id == row["id"]).order_by(files.c.path)
        if path := path.strip("/"):
            query = query.where(or_(files.c.path == path, files.c.path.startswith(f"{path}/", autoescape=True)))
        return _snapshot(row, [_stored(file) for file in self.connection.execute(query).mappings()])

    def must_be_free(self, workspace: str, name: str) -> None:
        """Conflict when there is a fileset of that name."""
        if self.find_row(workspace, name) is not None:
            raise Conflict(self.twin.format(workspace=workspace, name=name))

    def digests(self) -> set[str]:
        """Of every blob that a fileset holds."""
        return set(self.connection.execute(select(files.c.digest).where(files.c.digest.is_not(None))).scalars())

    def cached(self) -> set[str]:
        """Of every blob that only filesets of remote storages hold, which could give the bytes again."""
        joined = select(files.c.digest).join(filesets).where(files.c.digest.is_not(None))
        own = set(self.connection.execute(joined.where(_STORAGE == "local")).scalars())
        return set(self.connection.execute(joined.where(_STORAGE != "local")).scalars()) - own

    def uncache(self, digests: Sequence[str]) -> int:
        """The bytes of these remote files are no longer here; how many files that are."""
        gone = 0
        remote = files.c.fileset_id.in_(select(filesets.c.id).where(_STORAGE != "local"))
        for first in range(0, len(digests), 500):
            some = files.c.digest.in_(digests[first : first + 500])
            gone += self.connection.execute(update(files).where(some, remote).values(digest=None)).rowcount
        return gone

    def _file(self, row: RowMapping, path: str) -> StoredFile:
        query = select(files).where(files.c.fileset_id == row["id"], files.c.path == path)
        file = self.connection.execute(query).mappings().one_or_none()
        if file is None:
            raise NotFound(f"File '{path}' not found in fileset '{row['workspace']}/{row['name']}'")
        return _stored(file)

    def _in_the_way(self, fileset_id: str, path: str) -> str | None:
        """A file that lies below `path` as a directory, or that is one of its directories."""
        asked = {"id": fileset_id, "after": f"{path}/", "before": f"{path}0"}  # "0" comes after "/"
        other: str | None = self.connection.execute(_below(self.connection.dialect.name), asked).scalar()
        above = [str(parent) for parent in PurePosixPath(path).parents][:-1]
        if other is None and above:
            taken = select(files.c.path).where(files.c.fileset_id == fileset_id, files.c.path.in_(above))
            other = self.connection.execute(taken.limit(1)).scalar()
        return other

    def _put(self) -> Executable:
        """Insert a file, or overwrite the one of that path. Made once: making it takes longer than running it."""
        dialect = self.connection.dialect.name
        if dialect not in _PUTS:
            statement = upsert(self.connection, files)
            wins = {name: statement.excluded[name] for name in ("digest", "size", "tag", "created_at")}
            _PUTS[dialect] = statement.on_conflict_do_update(index_elements=["fileset_id", "path"], set_=wins)
        return _PUTS[dialect]

    def _own(self, workspace: str, name: str) -> RowMapping:
        """The row of a fileset whose files can be changed; Conflict for one that shows a remote storage."""
        row = self.row(workspace, name)
        if row["storage"]:
            raise Conflict(
                f"Fileset '{workspace}/{name}' shows files of a remote storage ({row['storage']['type']}), which "
                "cannot be changed here; create a fileset without storage for files of your own"
            )
        return row


_PUTS: dict[str, Executable] = {}
"""By dialect."""


@cache
def _below(dialect: str) -> Executable:
    """A file whose path is `after` one text and `before` another, byte by byte."""
    path = collate(files.c.path, "C" if dialect == "postgresql" else "BINARY")
    between = (path > bindparam("after"), path < bindparam("before"))
    return select(files.c.path).where(files.c.fileset_id == bindparam("id"), *between).limit(1)


def shown(workspace: str, name: str, file: StoredFile, cache_status: CacheStatus | None = None) -> FilesetFile:
    """A file of the fileset `name`, as the wire sees it."""
    return FilesetFile(
        file_ref=f"{workspace}/{name}#{file.path}",
        file_url=f"{FILESETS.format(workspace=workspace)}/{name}/-/{file.path}",
        path=file.path,
        size=file.size,
        digest=file.digest,
        cache_status=cache_status,
    )


def _stored(row: RowMapping) -> StoredFile:
    return StoredFile(row["path"], row["digest"], row["size"], row["tag"])


def _snapshot(row: RowMapping, held: Iterable[StoredFile]) -> Snapshot:
    calling = ((row["metadata"] or {}).get("model") or {}).get("tool_calling") or {}
    return Snapshot(
        fileset=f"{row['workspace']}/{row['name']}",
        files=tuple(held),
        chat_template=calling.get("chat_template") or "",
        storage=row["storage"] and REMOTE_STORAGE.validate_python(row["storage"]),
    )


def _version(file: StoredFile) -> tuple[str | None, int]:
    return file.tag, file.size


def _fileset(row: RowMapping) -> Fileset:
    where = FILESETS.format(workspace=row["workspace"]) + f"/{row['name']}"
    storage = row["storage"] or LocalStorage(path=where)
    return Fileset.model_validate({**row, "storage": storage, "project": row["project"] or ""})


def _metadata(given: FilesetMetadata) -> dict[str, Any]:
    return given.model_dump(mode="json", by_alias=True)


def _custom_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Without the mark that only the platform's own services may set."""
    return {key: value for key, value in given.items() if key != MARK}


def _marks(row: RowMapping) -> dict[str, Any]:
    return {key: value for key, value in (row["custom_fields"] or {}).items() if key == MARK}
