"""Backup and restore of a data directory: the database, every blob that it refers to, and the key of the secrets.

A backup may be made while a server runs. The database is copied as it is at one moment; the blobs it refers to never
change, and are linked aside at once, so that no garbage collection takes them away meanwhile. Not in it: runs (logs,
checkpoints, unregistered artifacts), deployments' directories, and remote files that were not fetched.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunesmith import __version__
from tunesmith.api.deployments import DeploymentStatus
from tunesmith.api.jobs import JobStatus
from tunesmith.control import platform_jobs
from tunesmith.errors import BadRequest, DiskFull, NotFound, TunesmithError
from tunesmith.store import needs
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database, Tx
from tunesmith.store.ids import hexadecimal
from tunesmith.store.jobs import Phase

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
DATABASE: Final = "tunesmith.db"
KEY: Final = "secret.key"
BLOB: Final = re.compile(r"blobs/([0-9a-f]{2})/(\1[0-9a-f]{62})")
COPIES: Final = 5
"""Times that the database is copied again because a blob went between its copy and the linking."""
LARGEST_KEY: Final = 1 << 20
WITHOUT_RUN: Final = (Phase.PREPARING, Phase.QUEUED, Phase.TRAINING, Phase.PAUSED)


@dataclass(frozen=True, slots=True)
class Archived:
    """What a backup holds."""

    blobs: int
    bytes: int
    """Of the whole file."""
    made_at: float
    """Seconds since 1970."""


class BackupError(TunesmithError):
    """A backup could not be made or restored; nothing was left behind."""

    code = "backup"


def backup(data_dir: Path, target: Path) -> Archived:
    """Write a backup of a data directory to a tar file of mode 0600, which appears whole or not at all."""
    if not (data_dir / DATABASE).is_file():
        raise NotFound(f"{data_dir} holds no {DATABASE}, so it is no data directory; name the right --data-dir")
    if target.exists():
        raise BadRequest(f"{target} exists; choose another name, a backup never replaces a file")
    part = target.with_name(f".{target.name}.{hexadecimal(8)}.part")
    try:
        with _set_aside(data_dir) as aside, part.open("xb") as file:
            part.chmod(0o600)
            digests = _copy(data_dir, aside)
            manifest = {"format": FORMAT, "version": __version__, "made_at": time.time(), "blobs": len(digests)}
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, dereference=True) as archive:
                _add_bytes(archive, MANIFEST, json.dumps(manifest).encode())
                archive.add(aside / DATABASE, DATABASE)
                if (data_dir / KEY).is_file():
                    archive.add(data_dir / KEY, KEY)
                for digest in sorted(digests):
                    archive.add(aside / digest, f"blobs/{digest[:2]}/{digest}")
            file.flush()
            os.fsync(file.fileno())
        os.link(part, target)
        return Archived(len(digests), target.stat().st_size, float(str(manifest["made_at"])))
    except FileExistsError:
        raise BadRequest(f"{target} exists; choose another name, a backup never replaces a file") from None
    except OSError as error:
        raise _reason(error, target) from error
    finally:
        part.unlink(missing_ok=True)


def restore(source: Path, data_dir: Path) -> Archived:
    """Make a data directory from a backup: every blob's digest is checked, and it appears whole or not at all.

    Jobs that had begun are ended, since their runs are not in a backup; deployments are started again by the server.
    """
    if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
        raise BadRequest(f"{data_dir} is not empty; restore into a new directory, and move it where you want it")
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    fresh = data_dir.with_name(f".{data_dir.name}.restoring-{hexadecimal(8)}")
    try:
        fresh.mkdir(mode=0o700)
        with tarfile.open(source, "r:") as archive:
            manifest = _unpack(archive, fresh)
        _check(fresh / DATABASE)
        asyncio.run(_settle(fresh))
        missing = [digest for digest in _needed(fresh / DATABASE)[0] if not _blob(fresh, digest).is_file()]
        if missing:
            raise BackupError(f"{source} lacks {len(missing)} blobs that its database refers to, such as {missing[0]}")
        os.sync()
        if data_dir.exists():
            data_dir.rmdir()
        fresh.rename(data_dir)
        return Archived(manifest["blobs"], source.stat().st_size, manifest["made_at"])
    except (tarfile.TarError, EOFError, sqlite3.DatabaseError) as error:
        raise BackupError(f"{source} is not a whole Tunesmith backup: {error}") from None
    except OSError as error:
        raise _reason(error, data_dir) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


# -- making one ----------------------------------------------------------------------------------------------------


@contextmanager
def _set_aside(data_dir: Path) -> Iterator[Path]:
    """A directory beside the blobs for links to them; those of backups that were killed go first."""
    for leftover in data_dir.glob("backup-*"):
        if leftover.stat().st_mtime < time.time() - 24 * 3600:
            shutil.rmtree(leftover, ignore_errors=True)
    aside = data_dir / f"backup-{hexadecimal(8)}"
    aside.mkdir(mode=0o700)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _copy(data_dir: Path, aside: Path) -> set[str]:
    """The database as it is at one moment, and links to the blobs it refers to; their digests."""
    for _ in range(COPIES):
        (aside / DATABASE).unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(f"file:{data_dir / DATABASE}?mode=ro", uri=True, timeout=60)) as source,
            closing(sqlite3.connect(aside / DATABASE)) as copy,
        ):
            source.backup(copy)
        needed, wanted = _needed(aside / DATABASE)
        missing = [digest for digest in needed if not _link(data_dir, aside, digest)]
        if not missing:
            return needed | {digest for digest in wanted if _link(data_dir, aside, digest)}
    raise BackupError(
        f"{len(missing)} blobs that the database refers to are not in {data_dir}, such as {missing[0]}: nothing was "
        "written. Delete or upload again the files that cannot be downloaded"
    )


def _needed(database: Path) -> tuple[set[str], set[str]]:
    """Digests that the database refers to; and those only ended jobs name, which retention may have taken."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        held = {digest for (digest,) in connection.execute("select digest from files where digest is not null")}
        live: set[str] = set()
        ended: set[str] = set()
        for phase, inputs in connection.execute("select phase, inputs from jobs where inputs is not null"):
            (ended if phase == needs.ENDED else live).update(needs.digests_in(json.loads(inputs)))
    return held | live, ended - held - live


def _link(data_dir: Path, aside: Path, digest: str) -> bool:
    """Whether the blob is there; then it also is aside."""
    try:
        (aside / digest).hardlink_to(_blob(data_dir, digest))
    except FileExistsError:
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in (errno.EMLINK, errno.EPERM):
            raise
        (aside / digest).symlink_to(_blob(data_dir, digest))
    return True


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    facts = tarfile.TarInfo(name)
    facts.size, facts.mode, facts.mtime = len(content), 0o600, int(time.time())
    archive.addfile(facts, io.BytesIO(content))


# -- taking one back -----------------------------------------------------------------------------------------------


def _unpack(archive: tarfile.TarFile, fresh: Path) -> dict[str, Any]:
    """Lay out the members, which are known by name; nothing else is taken from the archive. Returns the manifest."""
    manifest: dict[str, Any] | None = None
    for member in archive:
        source = archive.extractfile(member) if member.isreg() else None
        if source is None:
            raise BackupError(f"'{member.name[:200]}' in the backup is not a plain file")
        if manifest is None:
            manifest = _manifest(member, source.read(LARGEST_KEY))
        elif member.name == DATABASE or (member.name == KEY and member.size <= LARGEST_KEY):
            _lay(source, fresh / member.name, 0o600)
        elif BLOB.fullmatch(member.name):
            target = fresh / member.name
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if _lay(source, target, 0o400) != target.name:
                raise BackupError(f"{member.name} in the backup is damaged: its bytes have another digest")
        else:
            raise BackupError(f"'{member.name[:200]}' does not belong into a Tunesmith backup")
    if manifest is None or not (fresh / DATABASE).is_file():
        raise BackupError("the file is not a whole Tunesmith backup: it holds no database")
    return manifest


def _manifest(member: tarfile.TarInfo, content: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(content) if member.name == MANIFEST else {}
    except ValueError:
        manifest = {}
    if not isinstance(manifest, dict) or not {"format", "blobs", "made_at"} <= manifest.keys():
        raise BackupError(f"the file is not a Tunesmith backup: it does not begin with {MANIFEST}")
    if manifest["format"] != FORMAT:
        raise BackupError(f"the backup has format {manifest['format']}, this build knows {FORMAT}: use the newer one")
    return manifest


def _lay(source: Any, target: Path, mode: int) -> str:
    """Write a file of that mode; the sha256 of its bytes."""
    digest = hashlib.sha256()
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            file.write(chunk)
        os.fchmod(file.fileno(), mode)
    return digest.hexdigest()


def _check(database: Path) -> None:
    """DatabaseError when the file is not a whole SQLite database."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (found,) = connection.execute("pragma integrity_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)


async def _settle(fresh: Path) -> None:
    """Bring the copy's database to this version, and what ran when it was made to rest."""
    database = Database(DataDir(fresh).database)
    try:
        await database.write(settle)
    finally:
        database.close()


def settle(tx: Tx) -> None:
    """One transaction: jobs that had a run are over, deployments start anew, no device is held."""
    message = "The platform was restored from a backup that was made while this job ran; its run is not part of it."
    error = {"message": message, "type": "GenericTrainingError", "detail": "Submit the job again."}
    for job in tx.jobs.in_phase(*WITHOUT_RUN):
        values = {"keeper": None, "ending": None, "error_details": error}
        tx.jobs.move(job.id, Phase.DONE, JobStatus.ERROR, allowed_from=WITHOUT_RUN, **values)
        tx.jobs.steps.move_open(job.id, JobStatus.ERROR, error)
        tx.jobs.merge_details(job.id, None, {"phase": JobStatus.ERROR})
        tx.leases.release("job", job.id)
    for step in (*tx.platform_steps.begun(Phase.RUNNING), *tx.platform_steps.begun(Phase.PAUSED)):
        platform_jobs.lose(tx, step, error)
    for deployment in tx.deployments.all():
        tx.deployments.set(deployment.id, keeper=None, port=None)
        states = [DeploymentStatus.PENDING, DeploymentStatus.READY]
        message = "Restored from a backup"
        tx.deployments.move(deployment.id, DeploymentStatus.CREATED, message, allowed_from=states)


def _blob(data_dir: Path, digest: str) -> Path:
    return data_dir / "blobs" / digest[:2] / digest


def _reason(error: OSError, where: Path) -> TunesmithError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no room left for {where}; nothing was written: free some space and try again")
    return BackupError(f"{error.filename or where}: {error.strerror or error}; nothing was written")
