"""Files of filesets over the wire: paths, uploads, downloads, ranges."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.live import FILES, LiveServer, Wire, eventually
from tunesmith.server import uploads
from tunesmith.store.blobs import Blobs
from tunesmith.store.workspaces import Workspaces

SHA = hashlib.sha256


@pytest.fixture
def blobs(live: LiveServer) -> Blobs:
    return live.server.config.app.state.services.blobs


def raw(live: LiveServer, request: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(live.url.rpartition(":")[2])), timeout=30)
    connection.sendall(request)
    return connection


def put_head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"PUT {FILES}/rows/-/{path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def listed(wire: Wire, path: str = "") -> list[str]:
    answer = wire.http.get(f"{FILES}/rows/files", params={"path": path})
    return [file["path"] for file in answer.json()["data"]]


def test_a_path_lists_a_directory_or_one_file_but_no_prefix(wire: Wire) -> None:
    wire.fileset("rows", {"a/d.txt": b"1", "a/b/e.txt": b"22", "ab.txt": b"333"})
    assert listed(wire) == ["a/b/e.txt", "a/d.txt", "ab.txt"]
    assert listed(wire, "a") == listed(wire, "a/") == ["a/b/e.txt", "a/d.txt"]
    assert listed(wire, "a/d.txt") == ["a/d.txt"]
    assert listed(wire, "a/d") == listed(wire, "nothing") == listed(wire, "a_") == listed(wire, "x" * 5000) == []


def test_a_listed_file_has_size_digest_and_where_it_is(wire: Wire) -> None:
    wire.fileset("rows", {"a/b.txt": b"hello"})
    (file,) = wire.http.get(f"{FILES}/rows/files").json()["data"]
    assert file == {
        "file_ref": "default/rows#a/b.txt",
        "file_url": f"{FILES}/rows/-/a/b.txt",
        "path": "a/b.txt",
        "size": 5,
        "digest": SHA(b"hello").hexdigest(),
        "cache_status": "not_cacheable",
    }
    assert wire.http.put(f"{FILES}/rows/-/c", content=b"").json()["cache_status"] is None


def test_encoded_and_plain_slashes_are_the_same_file(wire: Wire) -> None:
    wire.fileset("rows", {"x%2Fy%20z.txt": b"hello", "%C3%A9/%E6%97%A5.txt": b"unicode"})
    assert wire.http.get(f"{FILES}/rows/-/x/y z.txt").content == b"hello"
    assert listed(wire) == ["x/y z.txt", "é/日.txt"]
    assert wire.http.get(f"{FILES}/rows/-/é/日.txt").content == b"unicode"


@pytest.mark.parametrize(
    "path",
    [
        "..%2Fx",
        "a/..%2F..%2Fx",
        "%2e%2e/x",
        "%2Fetc/passwd",
        "a//b",
        "a%00b",
        "a%09b",
        "x" * 300,
        "x/" * 2500 + "x",
        "a%5Cb",
        "a/",
        "%FF",
        "%ED%A0%80",
    ],
)
def test_paths_that_lead_elsewhere_are_400(wire: Wire, path: str) -> None:
    wire.fileset("rows", {})
    answer = wire.http.put(f"{FILES}/rows/-/{path}", content=b"x")
    assert answer.status_code == 400, answer.text
    assert "path" in answer.json()["detail"]
    assert listed(wire) == []
    assert wire.http.get(f"{FILES}/rows/-/{path}").status_code in (400, 404)
    assert wire.http.delete(f"{FILES}/rows/-/{path}").status_code == 400


def test_a_path_is_a_file_or_a_directory_but_never_both(wire: Wire) -> None:
    wire.fileset("rows", {"a": b"1", "d/e/f": b"2", "b.txt": b"3"})
    for path, reason in (("a/b", "lies below 'a', which is a file"), ("d", "is a directory"), ("d/e", "directory")):
        answer = wire.http.put(f"{FILES}/rows/-/{path}", content=b"x")
        assert answer.status_code == 409, path
        assert reason in answer.json()["detail"]
    for path in ("d/e/g", "ab", "a.b/c", "d0", "b", "b.txt0/x"):
        assert wire.http.put(f"{FILES}/rows/-/{path}", content=b"x").status_code == 200, path


def test_a_directory_is_not_a_file(wire: Wire) -> None:
    wire.fileset("rows", {"a/b": b"1"})
    for path in ("a", "a/", "a/b/"):
        assert wire.http.get(f"{FILES}/rows/-/{path}").status_code == 404, path
        assert wire.http.head(f"{FILES}/rows/-/{path}").status_code == 404, path


def test_a_head_and_a_whole_download_agree(wire: Wire) -> None:
    wire.fileset("rows", {"f": b"0123456789"})
    head, whole = wire.http.head(f"{FILES}/rows/-/f"), wire.http.get(f"{FILES}/rows/-/f")
    assert whole.content == b"0123456789"
    for answer in (head, whole):
        assert answer.headers["content-length"] == "10"
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["etag"] == f'"{SHA(b"0123456789").hexdigest()}"'
        assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("asked", "content", "span"),
    [
        ("bytes=2-5", b"2345", "2-5"),
        ("bytes=2-", b"23456789", "2-9"),
        ("bytes=-3", b"789", "7-9"),
        ("bytes=-99", b"0123456789", "0-9"),
        ("bytes=8-99", b"89", "8-9"),
        ("bytes=0-99999999999999999999999", b"0123456789", "0-9"),
        ("bytes=1-2,5-6", b"12", "1-2"),
        ("bytes= 1-2", b"12", "1-2"),
    ],
)
def test_a_range_is_served_up_to_the_end_of_the_file(wire: Wire, asked: str, content: bytes, span: str) -> None:
    wire.fileset("rows", {"f": b"0123456789"})
    part = wire.http.get(f"{FILES}/rows/-/f", headers={"range": asked})
    assert (part.status_code, part.content) == (206, content)
    assert part.headers["content-range"] == f"bytes {span}/10"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=10-",
        "bytes=10-12",
        "bytes=5-2",
        "bytes=-0",
        "bytes=-",
        "bytes=",
        "bytes",
        "junk",
        "items=0-1",
        "bytes=a-b",
        "bytes=1",
        "bytes=--1",
        "bytes=1-2-3",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_a_range_without_a_byte_is_416_and_says_which(wire: Wire, asked: str) -> None:
    wire.fileset("rows", {"f": b"0123456789"})
    refused = wire.http.get(f"{FILES}/rows/-/f", headers={"range": asked})
    assert refused.status_code == 416
    assert refused.json() == {"detail": f"Invalid range: {asked[:200]}"}
    assert refused.headers["content-range"] == "bytes */10"


def test_an_empty_file_has_no_ranges(wire: Wire) -> None:
    wire.fileset("rows", {"f": b""})
    assert wire.http.get(f"{FILES}/rows/-/f").content == b""
    for asked in ("bytes=0-", "bytes=0-0", "bytes=-1"):
        assert wire.http.get(f"{FILES}/rows/-/f", headers={"range": asked}).status_code == 416


def test_a_reader_that_has_the_bytes_gets_304_and_a_range_of_other_bytes_is_the_whole_file(wire: Wire) -> None:
    wire.fileset("rows", {"f": b"0123456789"})
    where = f"{FILES}/rows/-/f"
    tag = wire.http.head(where).headers["etag"]
    assert wire.http.get(where, headers={"if-none-match": f'"x", {tag}'}).status_code == 304
    assert wire.http.get(where, headers={"if-none-match": '"x"'}).status_code == 200
    assert wire.http.get(where, headers={"range": "bytes=1-2", "if-range": tag}).content == b"12"
    assert wire.http.get(where, headers={"range": "bytes=1-2", "if-range": '"x"'}).content == b"0123456789"


def test_an_overwritten_file_is_the_new_one_and_a_removed_one_is_gone(wire: Wire) -> None:
    wire.fileset("rows", {"f": b"old"})
    assert wire.http.put(f"{FILES}/rows/-/f", content=b"newer").json()["size"] == 5
    assert wire.http.get(f"{FILES}/rows/-/f").content == b"newer"
    assert wire.http.delete(f"{FILES}/rows/-/f").json()["path"] == "f"
    gone = wire.http.get(f"{FILES}/rows/-/f")
    assert (gone.status_code, gone.json()["detail"]) == (404, "File 'f' not found in fileset 'default/rows'")
    assert wire.http.delete(f"{FILES}/rows/-/f").status_code == 404


def test_files_of_many_chunks_come_back_as_they_were_sent(wire: Wire) -> None:
    content = bytes(range(256)) * 20_000  # 5 MB

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(content), 70_001):
            yield content[start : start + 70_001]

    wire.fileset("rows", {})
    assert wire.http.put(f"{FILES}/rows/-/whole", content=content).json()["size"] == len(content)
    chunked = wire.http.put(f"{FILES}/rows/-/chunked", content=chunks()).json()
    assert chunked["digest"] == SHA(content).hexdigest()
    assert wire.http.get(f"{FILES}/rows/-/chunked").content == content
    part = wire.http.get(f"{FILES}/rows/-/whole", headers={"range": "bytes=1000001-4000000"})
    assert part.content == content[1_000_001:4_000_001]


def test_a_form_with_the_part_file_is_an_upload_too(wire: Wire) -> None:
    wire.fileset("rows", {})
    content = b"\r\n--boundary\r\n" * 100_000
    answer = wire.http.put(f"{FILES}/rows/-/f", files={"file": ("name.bin", content)})
    assert (answer.status_code, answer.json()["size"]) == (200, len(content))
    assert wire.http.get(f"{FILES}/rows/-/f").content == content


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"x"),
        ("multipart/form-data; boundary=b", b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\ncut'),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n--b--\r\n'),
        (f"multipart/form-data; boundary={'b' * 300}", b"x"),
    ],
)
def test_a_broken_form_is_refused_and_nothing_is_stored(wire: Wire, kind: str, body: bytes) -> None:
    wire.fileset("rows", {})
    answer = wire.http.put(f"{FILES}/rows/-/f", content=body, headers={"content-type": kind})
    assert answer.status_code == 400, answer.text
    assert listed(wire) == []


def test_an_upload_that_is_cut_off_leaves_the_old_file(wire: Wire, live: LiveServer, blobs: Blobs) -> None:
    wire.fileset("rows", {"f": b"old"})
    with raw(live, put_head("f", f"Content-Length: {5 << 20}") + bytes(3 << 20)):
        eventually(lambda: any(blobs.incoming.iterdir()), "the upload to begin")
    eventually(lambda: not any(blobs.incoming.iterdir()), "the upload to be given up")
    assert wire.http.get(f"{FILES}/rows/-/f").content == b"old"


def test_an_upload_into_a_workspace_that_is_deleted_meanwhile_is_404(
    wire: Wire, live: LiveServer, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while a job there is still ending, and the fileset has not gone yet."""
    monkeypatch.setattr(Workspaces, "closing", lambda _: [])  # so the cleanup has nothing to do
    wire.fileset("rows", {"f": b"old"})
    with raw(live, put_head("f", f"Content-Length: {3 << 20}") + bytes(2 << 20)) as connection:
        eventually(lambda: any(blobs.incoming.iterdir()), "the upload to begin")
        wire.http.delete("/apis/entities/v2/workspaces/default").raise_for_status()
        connection.sendall(bytes(1 << 20))
        assert connection.recv(100).startswith(b"HTTP/1.1 404")


def test_a_chunked_upload_without_its_end_leaves_nothing(wire: Wire, live: LiveServer, blobs: Blobs) -> None:
    wire.fileset("rows", {})
    body = b"%x\r\n%b\r\n" % (3 << 20, bytes(3 << 20))
    with raw(live, put_head("f", "Transfer-Encoding: chunked") + body) as connection:
        eventually(lambda: any(blobs.incoming.iterdir()), "the upload to begin")
        connection.shutdown(socket.SHUT_WR)
        eventually(lambda: not any(blobs.incoming.iterdir()), "the upload to be given up")
    assert listed(wire) == []


def test_a_sender_that_goes_silent_is_told_so(wire: Wire, live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PATIENCE_SECONDS", 0.2)
    wire.fileset("rows", {})
    with raw(live, put_head("f", "Content-Length: 1000") + b"x" * 10) as connection:
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"no data for 0.2 s; nothing was stored" in answer
    assert listed(wire) == []


def test_an_upload_that_cannot_fit_is_refused_before_it_is_read(
    wire: Wire, live: LiveServer, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.fileset("rows", {})
    with raw(live, put_head("f", f"Content-Length: {10**16}")) as connection:
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 507")
    assert b"no room left in" in answer
    monkeypatch.setattr("tunesmith.store.blobs.RESERVE_BYTES", 10**16)
    full = wire.http.put(f"{FILES}/rows/-/f", content=b"x")
    assert (full.status_code, full.headers["x-should-retry"]) == (507, "false")
    assert listed(wire) == []
    assert not any(blobs.incoming.iterdir())


def test_uploads_to_nowhere_are_404(wire: Wire) -> None:
    answer = wire.http.put(f"{FILES}/rows/-/f", content=b"x")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Fileset 'rows' not found in workspace 'default'")


def test_many_uploads_at_once_all_arrive(wire: Wire, live: LiveServer) -> None:
    wire.fileset("rows", {})

    async def upload() -> list[int]:
        async with httpx.AsyncClient(base_url=live.url, timeout=30) as http:
            sends = [http.put(f"{FILES}/rows/-/d/{i}", content=b"x" * i * 1000) for i in range(40)]
            sends += [http.put(f"{FILES}/rows/-/same", content=b"same") for _ in range(10)]
            return [answer.status_code for answer in await asyncio.gather(*sends)]

    assert set(asyncio.run(upload())) == {200}
    files: list[dict[str, Any]] = wire.http.get(f"{FILES}/rows/files").json()["data"]
    assert {file["path"]: file["size"] for file in files} == {**{f"d/{i}": i * 1000 for i in range(40)}, "same": 4}


def test_bytes_that_went_between_look_up_and_opening_are_503_and_the_server_lives(wire: Wire, blobs: Blobs) -> None:
    wire.fileset("rows", {"f": b"0123456789"})
    (blob,) = blobs.all()
    blobs.path(blob.digest).unlink()
    answer = wire.http.get(f"{FILES}/rows/-/f")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "was replaced or removed just now; ask again" in answer.json()["detail"]
