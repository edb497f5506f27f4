"""Filesets as repositories of a Hugging Face hub: what they are called, which revision they are at, what they hold.

A fileset has no history. Its revision is named by its files, so it changes when they do; `main` and the revision that
is current are understood, an older one is not found.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from tunesmith.control.filesets import FilesetService, OpenFile, checked_path
from tunesmith.errors import NotFound
from tunesmith.refs import Ref
from tunesmith.store.database import Tx
from tunesmith.store.filesets import Snapshot, StoredFile

MAIN = "main"


class RepositoryMissing(NotFound):
    """There is no such fileset."""

    code = "RepoNotFound"


class RevisionMissing(NotFound):
    """The fileset is not at that revision."""

    code = "RevisionNotFound"


class EntryMissing(NotFound):
    """The fileset has no such file or directory."""

    code = "EntryNotFound"


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory of a repository, which exists because files lie below it."""

    path: str
    oid: str


Entry = StoredFile | Folder


@dataclass(frozen=True, slots=True)
class Repository:
    """A fileset at one revision."""

    ref: Ref
    snapshot: Snapshot
    changed_at: datetime

    @property
    def revision(self) -> str:
        """40 hex digits: of all paths, bytes (or what a remote storage says of them) and sizes."""
        lines = sorted(f"{oid(file)} {file.size} {file.path}\n" for file in self.snapshot.files)
        return _hex40(f"{self.ref}\n" + "".join(lines))

    def entries(self, below: str = "", *, recursive: bool = True) -> list[Entry]:
        """Directories and files below a directory, `""` = the root; EntryMissing when there is nothing."""
        below = below.strip("/")
        top = PurePosixPath(below)
        files = [file for file in self.snapshot.files if not below or file.path.startswith(f"{below}/")]
        if below and not files:
            raise EntryMissing(f"'{below[:200]}' is not a directory of fileset '{self.ref}'")
        folders = {str(each) for file in files for each in PurePosixPath(file.path).parents} - {".", below}
        folders = {each for each in folders if not below or each.startswith(f"{below}/")}
        found: list[Entry] = [self._folder(path) for path in sorted(folders)]
        found += files
        return found if recursive else [each for each in found if PurePosixPath(each.path).parent == top]

    def entry(self, path: str) -> Entry | None:
        """The file or directory of that path; None without it."""
        path = path.strip("/")
        for file in self.snapshot.files:
            if file.path == path:
                return file
            if path and file.path.startswith(f"{path}/"):
                return self._folder(path)
        return None

    def _folder(self, path: str) -> Folder:
        below = [f"{oid(file)} {file.path}\n" for file in self.snapshot.files if file.path.startswith(f"{path}/")]
        return Folder(path, _hex40("".join(sorted(below))))


class Hub:
    """Reads filesets the way a hub's clients do."""

    def __init__(self, filesets: FilesetService) -> None:
        self.filesets = filesets

    async def repository(self, ref: Ref, revision: str = MAIN) -> Repository:
        """The fileset; RepositoryMissing, or RevisionMissing when it is at another revision."""
        try:
            repository = await self.filesets.database.read(_repository, ref)
        except NotFound as error:
            raise RepositoryMissing(error.message) from None
        if revision not in (MAIN, current := repository.revision):
            raise RevisionMissing(
                f"Fileset '{ref}' is not at revision '{revision[:80]}': it has no history; use '{MAIN}' or '{current}'"
            )
        return repository

    def open(self, repository: Repository, path: str) -> OpenFile:
        """A file to be read; EntryMissing without it."""
        path = checked_path(path)
        for file in repository.snapshot.files:
            if file.path == path:
                return self.filesets.opened(file, repository.snapshot)
        raise EntryMissing(f"File '{path}' not found in fileset '{repository.ref}'")


def oid(file: StoredFile) -> str:
    """The id of a file's bytes, 40 hex digits, as a git repository would have one."""
    return file.digest[:40] if file.digest else _hex40(f"{file.tag} {file.size} {file.path}")


def _repository(tx: Tx, ref: Ref) -> Repository:
    return Repository(ref, tx.filesets.snapshot(ref), tx.filesets.get(ref.workspace, ref.name).updated_at)


def _hex40(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]
