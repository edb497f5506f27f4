"""Backup and restore: what comes back is what was there, whole or not at all."""

from __future__ import annotations

import asyncio
import io
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.live import FILES, LiveServer, Wire, checkpoint, eventually, settings
from tunesmith.control.backup import BackupError, backup, restore
from tunesmith.errors import BadRequest, NotFound
from tunesmith.store.database import Tx

SECRETS = "/apis/secrets/v2/workspaces/default/secrets"


def listed(wire: Wire, fileset: str) -> dict[str, str]:
    return {file["path"]: file["digest"] for file in wire.http.get(f"{FILES}/{fileset}/files").json()["data"]}


def changed(source: Path, target: Path, name: str, content: bytes | None) -> Path:
    """The tar file with one member's bytes replaced, or the member left out."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            body = old.extractfile(member).read()
            if member.name.startswith(name):
                if content is None:
                    continue
                body, member.size = content, len(content)
            new.addfile(member, io.BytesIO(body))
    return target


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A backup of a platform with one fileset."""
    with LiveServer(settings(tmp_path)) as live:
        Wire(live.http).fileset("rows", {"a/b.txt": b"hello"})
        backup(settings(tmp_path).data_dir, tmp_path / "b.tar")
    return tmp_path / "b.tar"


def test_a_backup_made_while_files_come_in_is_restored_as_it_was_at_one_moment(tmp_path: Path) -> None:
    with LiveServer(settings(tmp_path)) as live:
        wire = Wire(live.http)
        wire.model("base", checkpoint())
        assert wire.http.post(SECRETS, json={"name": "token", "value": "s3cret"}).status_code == 201
        wire.fileset("rows", {})
        over = threading.Event()

        def upload() -> None:
            import httpx

            with httpx.Client(base_url=live.url, timeout=30) as http:
                number = 0
                while not over.is_set():
                    http.put(f"{FILES}/rows/-/{number}", content=b"%d" % number * 1000)
                    http.put(f"{FILES}/rows/-/same", content=b"%d" % number)
                    http.post("/apis/files/v2/gc", json={})
                    number += 1

        uploading = threading.Thread(target=upload)
        uploading.start()
        try:
            eventually(lambda: len(listed(wire, "rows")) > 3, "some uploads")
            archived = backup(settings(tmp_path).data_dir, tmp_path / "b.tar")
            seen = len(listed(wire, "rows"))
        finally:
            over.set()
            uploading.join()
        base = listed(wire, "base")
        assert not list(settings(tmp_path).data_dir.glob("backup-*"))
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    assert archived.blobs > len(base)

    restore(tmp_path / "b.tar", tmp_path / "new")
    with LiveServer(replace(settings(tmp_path), data_dir=tmp_path / "new")) as live:
        wire = Wire(live.http)
        assert listed(wire, "base") == base
        for name, content in checkpoint().items():
            assert wire.http.get(f"{FILES}/base/-/{name}").content == content
        rows = listed(wire, "rows")
        assert 3 < len(rows) <= seen + 1
        for path in rows:
            assert wire.http.get(f"{FILES}/rows/-/{path}").status_code == 200, path
        vault = live.server.config.app.state.services.vault
        from tunesmith.refs import Ref

        assert asyncio.run(vault.value(Ref("default", "token"))) == "s3cret"
        assert wire.http.get(SECRETS).json()["data"][0]["name"] == "token"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert modes <= {0o600, 0o400}


@pytest.mark.usefixtures("small_trainer")
def test_a_job_that_ran_is_over_after_a_restore_and_one_that_waits_goes_on(tmp_path: Path) -> None:
    with LiveServer(settings(tmp_path)) as live:
        wire = Wire(live.http)
        wire.model()
        wire.dataset(behaviour="hang")
        wire.submit("runs")
        eventually(lambda: wire.state("runs")["status"] == "active", "the job to run")
        backup(settings(tmp_path).data_dir, tmp_path / "b.tar")
        wire.http.post("/apis/jobs/v2/workspaces/default/jobs/runs/cancel")
        wire.wait("runs")
    restore(tmp_path / "b.tar", tmp_path / "new")
    with LiveServer(replace(settings(tmp_path), data_dir=tmp_path / "new")) as live:
        state = Wire(live.http).state("runs")
        assert state["status"] == "error"
        assert "restored from a backup" in state["error_details"]["message"]
        free = live.server.config.app.state.services.database
        assert asyncio.run(free.read(lambda tx: tx.leases.free(["cpu:0"]))) == ["cpu:0"]


def test_a_restore_into_a_directory_with_files_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(BadRequest, match="is not empty"):
        restore(made, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    restore(made, tmp_path / "empty")
    assert (tmp_path / "empty/tunesmith.db").is_file()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("blobs/", b"HELLO", "is damaged"),
        ("blobs/", None, "lacks 1 blobs"),
        ("tunesmith.db", None, "holds no database"),
        ("tunesmith.db", b"not a database at all" * 100, "not a whole Tunesmith backup"),
        ("manifest.json", None, "does not begin with manifest.json"),
        ("manifest.json", b'{"format": 99, "blobs": 1, "made_at": 1}', "has format 99"),
    ],
)
def test_a_damaged_backup_is_refused_and_leaves_nothing(
    made: Path, tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    damaged = changed(made, tmp_path / "damaged.tar", name, content)
    before = set(tmp_path.iterdir())
    with pytest.raises(BackupError, match=reason):
        restore(damaged, tmp_path / "new")
    assert set(tmp_path.iterdir()) == before


def test_a_backup_that_was_cut_off_is_refused(made: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tar"
    cut.write_bytes(made.read_bytes()[: made.stat().st_size // 3])
    with pytest.raises(BackupError):
        restore(cut, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_members_with_other_names_or_kinds_are_not_taken(made: Path, tmp_path: Path) -> None:
    for number, (name, kind) in enumerate(
        [("../evil", tarfile.REGTYPE), ("blobs/aa/" + "a" * 64, tarfile.SYMTYPE), ("/etc/x", tarfile.REGTYPE)]
    ):
        evil = tmp_path / f"evil{number}.tar"
        with tarfile.open(made) as old, tarfile.open(evil, "w") as new:
            first = old.next()
            assert first is not None
            new.addfile(first, old.extractfile(first))
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            new.addfile(member)
        with pytest.raises(BackupError):
            restore(evil, tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_a_backup_never_replaces_a_file_and_needs_a_data_directory(made: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="exists"):
        backup(settings(tmp_path).data_dir, made)
    with pytest.raises(NotFound, match="no data directory"):
        backup(tmp_path / "nothing", tmp_path / "c.tar")
    assert not (tmp_path / "c.tar").exists()


def test_a_database_that_refers_to_lost_bytes_is_not_backed_up(tmp_path: Path) -> None:
    with LiveServer(settings(tmp_path)) as live:
        Wire(live.http).fileset("rows", {"f": b"hello"})
        services = live.server.config.app.state.services

        def lose(tx: Tx) -> None:
            for digest in tx.filesets.digests():
                services.blobs.path(digest).unlink()

        asyncio.run(services.database.write(lose))
        with pytest.raises(BackupError, match="1 blobs that the database refers to are not in"):
            backup(settings(tmp_path).data_dir, tmp_path / "b.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
