"""Files up and down: where they land, that they arrive whole, and that memory stays small."""

from __future__ import annotations

import asyncio
import urllib.parse
from pathlib import Path

import httpx
import pytest

from tests.client import samples
from tests.client.samples import Platform
from tunesmith.client import trees
from tunesmith.errors import Invalid, NotFound, TunesmithError


class Store:
    """A fileset in memory, behind the wire."""

    def __init__(self, **files: str) -> None:
        self.files = {name.replace("__", "/"): text.encode() for name, text in files.items()}
        self.headers: list[httpx.Headers] = []
        self.platform = Platform(by=self.answer)

    def answer(self, request: httpx.Request):
        _, _, tail = request.url.raw_path.decode().partition("/-/")
        path = urllib.parse.unquote(tail)
        if request.method == "PUT":
            self.headers.append(request.headers)
            self.files[path] = request.read()
            return samples.FILE
        if path:
            return httpx.Response(200, content=self.files[path])
        if request.url.path.endswith("/files"):
            under = request.url.params.get("path", "").strip("/")
            found = [name for name in self.files if not under or name == under or name.startswith(under + "/")]
            return {"data": [{**samples.FILE, "path": name, "size": len(self.files[name])} for name in found]}
        return samples.FILESET


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "data"
    (top / "deep").mkdir(parents=True)
    (top / "train.jsonl").write_text("one")
    (top / "deep" / "b c.txt").write_text("three")
    (top / "empty").write_text("")
    return top


@pytest.mark.parametrize(
    ("local", "remote", "landed"),
    [
        ("data/", "", {"train.jsonl", "deep/b c.txt", "empty"}),
        ("data", "", {"data/train.jsonl", "data/deep/b c.txt", "data/empty"}),
        ("data/", "x", {"x/train.jsonl", "x/deep/b c.txt", "x/empty"}),
        ("data/", "x/", {"x/train.jsonl", "x/deep/b c.txt", "x/empty"}),
        ("data", "x/y", {"x/y/data/train.jsonl", "x/y/data/deep/b c.txt", "x/y/data/empty"}),
        ("data/train.jsonl", "", {"train.jsonl"}),
        ("data/train.jsonl", "x/y.jsonl", {"x/y.jsonl"}),
        ("data/train.jsonl", "x/", {"x/train.jsonl"}),
    ],
)
def test_where_uploads_land(tree, local, remote, landed):
    store = Store()
    store.platform.client().files.upload(f"{tree.parent}/{local}", fileset="triage", remote_path=remote)
    assert store.files.keys() == landed


def test_an_upload_is_raw_bytes_of_known_length_and_returns_the_fileset(tree):
    store = Store()
    told = []
    fileset = store.platform.client().files.upload(
        f"{tree}/", fileset="ws/triage", progress=lambda *it: told.append(it)
    )
    assert fileset.name == "triage"
    assert store.files == {"train.jsonl": b"one", "deep/b c.txt": b"three", "empty": b""}
    assert {headers["content-type"] for headers in store.headers} == {"application/octet-stream"}
    assert sorted(headers["content-length"] for headers in store.headers) == ["0", "3", "5"]
    assert not any("transfer-encoding" in headers for headers in store.headers)
    assert told[0] == (0, 8)
    assert told[-1] == (8, 8)
    assert any("/ws/filesets/triage/-/deep%2Fb%20c.txt" in sent for sent in store.platform.sent)


def test_the_async_client_uploads_and_downloads_the_same(tree, tmp_path):
    store = Store()

    async def run():
        async with store.platform.aclient() as client:
            await client.files.upload(f"{tree}/", fileset="triage")
            return await client.files.download("triage", tmp_path / "back")

    written = asyncio.run(run())
    assert store.files == {"train.jsonl": b"one", "deep/b c.txt": b"three", "empty": b""}
    assert sorted(str(it.relative_to(tmp_path / "back")) for it in written) == ["deep/b c.txt", "empty", "train.jsonl"]
    assert (tmp_path / "back" / "deep" / "b c.txt").read_text() == "three"


def test_a_file_goes_up_in_portions(tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "CHUNK_BYTES", 4)
    (tmp_path / "ten").write_bytes(b"0123456789")
    counted = []
    source = trees.to_upload(tmp_path / "ten", "")[0]
    assert list(trees.chunks(source, counted.append)) == [b"0123", b"4567", b"89"]
    assert counted == [4, 4, 2]


def test_a_file_that_shrinks_on_its_way_is_not_stored_short(tmp_path):
    (tmp_path / "log").write_bytes(b"0123456789")
    source = trees.to_upload(tmp_path / "log", "")[0]
    (tmp_path / "log").write_bytes(b"0123")
    with pytest.raises(TunesmithError, match="became shorter"):
        list(trees.chunks(source, lambda _: None))


def test_an_upload_that_was_cut_off_starts_again_and_counts_its_bytes_once(tree):
    store = Store()
    cut = [httpx.WriteError("cut off")]

    def answer(request):
        if request.method == "PUT" and cut:
            raise cut.pop()
        return store.answer(request)

    platform = Platform(by=answer)
    told = []
    platform.client().files.upload(tree / "train.jsonl", fileset="triage", progress=lambda done, _: told.append(done))
    assert store.files == {"train.jsonl": b"one"}
    assert told == [0, 3, 3]


def test_what_cannot_be_uploaded_is_said_before_the_wire(tmp_path):
    platform = Platform()
    with pytest.raises(NotFound, match="there is no file or directory"):
        platform.client().files.upload(tmp_path / "nowhere", fileset="triage")
    with pytest.raises(Invalid, match="holds no files"):
        platform.client().files.upload(tmp_path, fileset="triage")


@pytest.mark.parametrize(
    ("remote", "local", "written"),
    [
        (None, "out", {"out/a.txt", "out/d/b.txt", "out/d/e/c.txt"}),
        ("d/", "out", {"out/b.txt", "out/e/c.txt"}),
        ("d", "out", {"out/d/b.txt", "out/d/e/c.txt"}),
        ("d/e", "out", {"out/e/c.txt"}),
        ("d/b.txt", "out/", {"out/b.txt"}),
        ("d/b.txt", "out", {"out"}),
    ],
)
def test_where_downloads_land(tmp_path, remote, local, written):
    store = Store(**{"a.txt": "a", "d/b.txt": "bb", "d/e/c.txt": "ccc"})
    store.platform.client().files.download("triage", f"{tmp_path}/{local}", remote)
    assert {str(it.relative_to(tmp_path)) for it in tmp_path.rglob("*") if it.is_file()} == written


def test_a_download_that_breaks_off_leaves_what_was_there(tmp_path):
    there = tmp_path / "a.txt"
    there.write_text("old")

    def break_off():
        with trees.appearing(there) as file:
            file.write(b"ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert there.read_text() == "old"
    assert list(tmp_path.iterdir()) == [there]


def test_a_missing_path_downloads_an_error(tmp_path):
    with pytest.raises(NotFound, match="'nowhere' in fileset 'triage'"):
        Store().platform.client().files.download("triage", tmp_path, "nowhere")


def test_a_fileset_cannot_write_outside_of_the_directory(tmp_path):
    store = Store(**{"../evil.txt": "x"})
    with pytest.raises(Invalid, match="outside"):
        store.platform.client().files.download("triage", tmp_path / "in")
    assert not (tmp_path / "evil.txt").exists()


def test_content_goes_up_and_comes_down():
    store = Store()
    files = store.platform.client().files
    files.upload_content("grün", "a/b.txt", "triage")
    assert files.download_content("triage", "a/b.txt") == "grün".encode()
    with pytest.raises(Invalid, match="does not name a file"):
        files.download_content("triage", "/")
