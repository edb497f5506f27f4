"""kill -9 of the server while a file comes in: afterwards everything is as it was before the upload."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.journeys.house import House
from tests.live import eventually
from tunesmith import Tunesmith
from tunesmith.control.filesets import PORTION

FILE = "/apis/files/v2/workspaces/default/filesets/big/-/weights.bin"
MIB = 1 << 20


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    started = House(tmp_path / "data")
    yield started
    started.down()


@pytest.mark.parametrize("overwrites", [False, True], ids=["new file", "old file"])
def test_a_killed_upload_leaves_the_old_file_or_none(house: House, overwrites: bool) -> None:
    killed_half_way(house, overwrites, 64 * MIB)


def killed_half_way(house: House, overwrites: bool, total: int) -> None:
    """The whole story, with a file of `total` bytes."""
    client = house.up()
    client.files.filesets.create("big")
    before = {}
    if overwrites:
        client.files.upload_content(b"the old bytes", "weights.bin", fileset="big")
        before = {"weights.bin": b"the old bytes"}

    half_sent(client, house, total)
    house.kill()

    client = house.up()
    assert {file.path: file.size for file in client.files.list("big").data} == {
        path: len(content) for path, content in before.items()
    }
    for path, content in before.items():
        assert client.files.download_content("big", path) == content
    assert leftovers(house) == [], "what was half written is gone"

    whole = httpx.put(f"{client.base_url}{FILE}", content=chunks(total), timeout=600)
    assert whole.status_code == 200, whole.text
    with httpx.stream("GET", f"{client.base_url}{FILE}", timeout=600) as down:
        digest = hashlib.sha256()
        for chunk in down.iter_raw():
            digest.update(chunk)
    expected = hashlib.sha256()
    for chunk in chunks(total):
        expected.update(chunk)
    assert digest.hexdigest() == expected.hexdigest()
    assert [(file.path, file.size) for file in client.files.list("big").data] == [("weights.bin", total)]


def half_sent(client: Tunesmith, house: House, total: int) -> socket.socket:
    """A PUT of `total` bytes of which half is sent, and on disk but for what the server holds in memory."""
    where = urlsplit(client.base_url)
    line = socket.create_connection((where.hostname, where.port))
    line.sendall(
        f"PUT {FILE} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Length: {total}\r\n\r\n".encode()
    )
    for chunk in chunks(total // 2):
        line.sendall(chunk)
    eventually(
        lambda: sum(path.stat().st_size for path in leftovers(house)) >= total // 2 - 2 * PORTION, "half on disk"
    )
    return line


def leftovers(house: House) -> list[Path]:
    """Files on their way in."""
    return [path for path in (house.data_dir / "blobs" / "incoming").rglob("*") if path.is_file()]


def chunks(total: int) -> Iterator[bytes]:
    """`total` bytes, no two portions alike."""
    for number in range(total // MIB):
        yield number.to_bytes(8, "big") * (MIB // 8)
