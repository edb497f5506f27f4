"""Filesets and files over the wire."""

from __future__ import annotations

import socket

import pytest

from tests.live import FILES, LiveServer, Wire, eventually


def test_a_new_fileset_answers_200_with_every_key_the_strict_client_needs(live: LiveServer) -> None:
    answer = live.http.post(FILES, json={"name": "rows", "purpose": "dataset"})
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("id").startswith("fileset-")
    assert body.pop("created_at") == body.pop("updated_at")
    assert body.pop("storage")["type"] == "local"
    assert body == {
        "name": "rows",
        "workspace": "default",
        "description": "",
        "purpose": "dataset",
        "metadata": {"dataset": None, "model": None},
        "custom_fields": {},
        "project": "",
    }
    assert live.http.get(f"{FILES}/rows").json()["name"] == "rows"


@pytest.mark.parametrize("name", ["Upper", "1abc", "a", "a--b", "ab-", "a" * 64, "a/b", "é", ""])
def test_an_unlawful_name_is_422_and_nothing_is_stored(live: LiveServer, name: str) -> None:
    answer = live.http.post(FILES, json={"name": name})
    assert answer.status_code == 422, answer.text
    assert "name" in answer.text
    assert live.http.get(FILES).json()["pagination"]["total_results"] == 0


def test_a_twin_is_409_and_not_to_be_retried(live: LiveServer) -> None:
    live.http.post(FILES, json={"name": "rows"})
    answer = live.http.post(FILES, json={"name": "rows"})
    assert (answer.status_code, answer.json()) == (409, {"detail": "Fileset 'default/rows' already exists"})
    assert answer.headers["x-should-retry"] == "false"


def test_unknown_keys_and_workspaces_are_refused(live: LiveServer) -> None:
    unknown = live.http.post(FILES, json={"name": "rows", "colour": "red"})
    assert (unknown.status_code, unknown.json()["detail"][0]["type"]) == (422, "extra_forbidden")
    assert unknown.json()["detail"][0]["loc"] == ["body", "colour"]
    nowhere = live.http.post(FILES.replace("default", "nowhere"), json={"name": "rows"})
    assert nowhere.status_code == 422
    assert nowhere.json()["detail"] == "Workspace 'nowhere' does not exist. Please create the workspace first."
    assert live.http.get(FILES.replace("default", "nowhere")).status_code == 404


def test_pages_follow_each_other_and_end(live: LiveServer) -> None:
    for i in range(5):
        live.http.post(FILES, json={"name": f"f{i}"})
    names = []
    for page in (1, 2, 3, 4):
        body = live.http.get(FILES, params={"page": page, "page_size": 2, "sort": "name"}).json()
        names += [item["name"] for item in body["data"]]
        assert body["pagination"]["total_pages"] == 3
        assert body["sort"] == "name"
    assert names == ["f0", "f1", "f2", "f3", "f4"]
    assert live.http.get(FILES).json()["data"][0]["name"] == "f4"
    for bad in ({"page": 0}, {"page_size": 0}, {"page_size": 1001}, {"page": 10**18}, {"colour": "red"}):
        assert live.http.get(FILES, params=bad).status_code == 422, bad
    assert live.http.get(FILES, params={"sort": "colour"}).status_code == 400


def test_a_path_lists_a_directory_or_one_file_but_no_prefix(wire: Wire) -> None:
    wire.fileset("rows", {"a/d.txt": b"1", "a/b/e.txt": b"22", "ab.txt": b"333"})

    def listed(path: str) -> list[str]:
        answer = wire.http.get(f"{FILES}/rows/files", params={"path": path})
        return [file["path"] for file in answer.json()["data"]]

    assert listed("") == ["a/b/e.txt", "a/d.txt", "ab.txt"]
    assert listed("a") == listed("a/") == ["a/b/e.txt", "a/d.txt"]
    assert listed("a/d.txt") == ["a/d.txt"]
    assert listed("a/d") == listed("nothing") == listed("a_") == []


def test_encoded_and_plain_slashes_are_the_same_file(wire: Wire) -> None:
    wire.fileset("rows", {"x%2Fy%20z.txt": b"hello"})
    assert wire.http.get(f"{FILES}/rows/-/x/y z.txt").content == b"hello"
    (file,) = wire.http.get(f"{FILES}/rows/files").json()["data"]
    assert (file["path"], file["size"], file["file_ref"]) == ("x/y z.txt", 5, "default/rows#x/y z.txt")


def test_a_range_a_head_and_a_whole_download_agree(wire: Wire) -> None:
    wire.fileset("rows", {"f": b"0123456789"})
    where = f"{FILES}/rows/-/f"
    head = wire.http.head(where)
    assert (head.headers["content-length"], head.headers["accept-ranges"]) == ("10", "bytes")
    whole = wire.http.get(where)
    assert (whole.content, whole.headers["content-type"]) == (b"0123456789", "application/octet-stream")
    for asked, content in (
        ("bytes=2-5", b"2345"),
        ("bytes=2-", b"23456789"),
        ("bytes=-3", b"789"),
        ("bytes=8-99", b"89"),
    ):
        part = wire.http.get(where, headers={"range": asked})
        assert (part.status_code, part.content) == (206, content)
    assert wire.http.get(where, headers={"range": "bytes=10-"}).status_code == 416


def test_an_overwritten_file_is_the_new_one_and_a_removed_one_is_gone(wire: Wire) -> None:
    wire.fileset("rows", {"f": b"old"})
    assert wire.http.put(f"{FILES}/rows/-/f", content=b"newer").json()["size"] == 5
    assert wire.http.get(f"{FILES}/rows/-/f").content == b"newer"
    assert wire.http.delete(f"{FILES}/rows/-/f").json()["path"] == "f"
    gone = wire.http.get(f"{FILES}/rows/-/f")
    assert (gone.status_code, gone.json()["detail"]) == (404, "File 'f' not found in fileset 'default/rows'")


@pytest.mark.parametrize(
    "path", ["..%2Fx", "a/..%2F..%2Fx", "%2Fetc/passwd", "a//b", "a%00b", "x" * 300, "a%5Cb", "a/"]
)
def test_paths_that_lead_elsewhere_are_400(wire: Wire, path: str) -> None:
    wire.fileset("rows", {})
    answer = wire.http.put(f"{FILES}/rows/-/{path}", content=b"x")
    assert answer.status_code == 400, answer.text
    assert "path" in answer.json()["detail"]
    assert wire.http.get(f"{FILES}/rows/files").json()["data"] == []


def test_an_upload_that_is_cut_off_leaves_the_old_file(wire: Wire, live: LiveServer) -> None:
    wire.fileset("rows", {"f": b"old"})
    incoming = live.server.config.app.state.services.blobs.incoming  # type: ignore[union-attr]
    with socket.create_connection(("127.0.0.1", int(live.url.rpartition(":")[2]))) as cut:
        head = f"PUT {FILES}/rows/-/f HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        cut.sendall(head.encode() + b"x" * 10)
        eventually(lambda: any(incoming.iterdir()), "the upload to begin")
    eventually(lambda: not any(incoming.iterdir()), "the upload to be given up")
    assert wire.http.get(f"{FILES}/rows/-/f").content == b"old"
