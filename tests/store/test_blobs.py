"""Bytes by digest: written whole or not at all, kept once, never changed."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest

from tunesmith.errors import DiskFull
from tunesmith.store.blobs import Blobs
from tunesmith.store.filesets import StoredFile


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def keep(blobs: Blobs, content: bytes) -> str:
    with blobs.writer() as writer:
        writer.write(content)
        return writer.keep()


def stored(blobs: Blobs) -> list[Path]:
    return [path for path in blobs.root.rglob("*") if path.is_file()]


def test_bytes_are_found_under_their_sha256_and_cannot_be_written_to(blobs: Blobs) -> None:
    digest = keep(blobs, b"hello")
    assert digest == hashlib.sha256(b"hello").hexdigest()
    assert blobs.path(digest).read_bytes() == b"hello"
    assert blobs.path(digest).stat().st_mode & 0o777 == 0o400


def test_equal_bytes_are_kept_once(blobs: Blobs) -> None:
    assert keep(blobs, b"same") == keep(blobs, b"same")
    assert len(stored(blobs)) == 1


def test_a_writer_that_is_given_up_leaves_nothing(blobs: Blobs) -> None:
    with blobs.writer() as writer:
        writer.write(b"half")
    assert stored(blobs) == []


def test_what_a_killed_server_left_half_written_is_gone_at_the_next_start(blobs: Blobs) -> None:
    writer = blobs.writer()
    writer.write(b"half")
    assert len(stored(blobs)) == 1
    assert stored(Blobs(blobs.root)) == []


def test_an_artifact_is_adopted_without_copying(blobs: Blobs, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    artifact.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    blobs.adopt(artifact, digest)
    blobs.adopt(artifact, digest)
    assert blobs.path(digest).stat().st_ino == artifact.stat().st_ino


def test_files_are_laid_out_as_links_and_laying_out_again_is_harmless(blobs: Blobs, tmp_path: Path) -> None:
    digest = keep(blobs, b"rows")
    files = [StoredFile("a/b/train.jsonl", digest, 4)]
    for _ in range(2):
        blobs.link(files, tmp_path / "run")
    linked = tmp_path / "run/a/b/train.jsonl"
    assert linked.read_bytes() == b"rows"
    assert linked.stat().st_ino == blobs.path(digest).stat().st_ino


def test_a_full_disk_says_where_and_keeps_nothing(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskFull, match=f"no room left in {blobs.root}"):
        keep(blobs, b"x")
    assert stored(blobs) == []


def test_what_is_on_its_way_in_is_private(blobs: Blobs) -> None:
    with blobs.writer() as writer:
        writer.write(b"half")
        (path,) = stored(blobs)
        assert path.stat().st_mode & 0o777 == 0o400
        assert {each.stat().st_mode & 0o777 for each in blobs.root.rglob("*") if each.is_dir()} == {0o700}


def test_many_chunks_at_once_are_one_file(blobs: Blobs) -> None:
    chunks = [bytes([i % 256]) * (i % 7) for i in range(3000)]
    with blobs.writer() as writer:
        writer.write(*chunks)
        digest = writer.keep()
        assert blobs.path(digest).read_bytes() == b"".join(chunks)


def test_an_empty_file_is_a_blob_too(blobs: Blobs) -> None:
    with blobs.writer() as writer:
        assert blobs.path(writer.keep()).read_bytes() == b""


def test_a_writer_that_was_left_takes_nothing_more(blobs: Blobs) -> None:
    with blobs.writer() as writer:
        writer.write(b"half")
    with pytest.raises(ValueError, match="the writer was left"):
        writer.write(b"more")
    assert stored(blobs) == []


def test_a_sweep_spares_what_a_writer_holds_until_its_block_ends(blobs: Blobs) -> None:
    with blobs.writer() as writer:
        writer.write(b"new")
        digest = writer.keep()
        with blobs.sweep() as sweep:
            assert not sweep.drop(digest)
    with blobs.sweep() as sweep:
        assert sweep.drop(digest)
        assert not sweep.drop(digest)
    assert stored(blobs) == []


def test_a_sweep_spares_what_was_kept_and_let_go_while_it_went_on(blobs: Blobs) -> None:
    digest = keep(blobs, b"old")
    with blobs.sweep() as sweep:
        assert keep(blobs, b"old") == digest  # its row is committed now, and the sweep cannot know
        assert not sweep.drop(digest)
    with blobs.sweep() as sweep, blobs.hold([digest]):
        assert not sweep.drop(digest)


def test_every_blob_is_listed_with_size_and_links(blobs: Blobs, tmp_path: Path) -> None:
    digest = keep(blobs, b"rows")
    blobs.link([StoredFile("f", digest, 4)], tmp_path / "run")
    with blobs.writer() as writer:
        writer.write(b"half")
        assert [(each.digest, each.size, each.links) for each in blobs.all()] == [(digest, 4, 2)]


def test_a_disk_that_is_nearly_full_takes_nothing(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.store.blobs.RESERVE_BYTES", 10**16)
    with pytest.raises(DiskFull, match="stay free"), blobs.writer() as writer:
        writer.write(b"x")
    assert stored(blobs) == []
