"""kill -9 again and again while filesets, files and models are written: what was acknowledged is there and whole."""

from __future__ import annotations

import hashlib
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from tests.live import FILES, MODELS, eventually

ROUNDS = 20
WRITERS = 4
KILL_AFTER = 40
"""Acknowledged writes of a round before the kill."""


class Server:
    """`tunesmith up` on a directory, until it is killed."""

    def __init__(self, folder: Path) -> None:
        said = folder / "said"
        environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-m", "tunesmith.cli.main", "up", "--port", "0", "--data-dir", str(folder / "data")]
        with said.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=environment)
        self.url = eventually(lambda: re.search(r"listens on (\S+)", said.read_text()), "the server to listen")[1]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def test_nothing_that_was_acknowledged_is_lost_and_nothing_is_half_there(tmp_path: Path) -> None:
    files: dict[str, str] = {}
    models: set[str] = set()
    for number in range(ROUNDS):
        server = Server(tmp_path)
        enough = threading.Event()
        writers = [
            threading.Thread(target=_write, args=(server.url, f"r{number}-w{writer}", files, models, enough))
            for writer in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        assert enough.wait(60)
        server.kill()
        for writer in writers:
            writer.join()
    server = Server(tmp_path)
    try:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            assert len(files) >= ROUNDS * KILL_AFTER // 3
            for path, digest in files.items():
                assert hashlib.sha256(http.get(path).raise_for_status().content).hexdigest() == digest, path
            for model in models:
                http.get(f"{MODELS}/{model}").raise_for_status()
            for fileset in {path.partition("/-/")[0] for path in files}:
                for listed in http.get(f"{fileset}/files").raise_for_status().json()["data"]:
                    content = http.get(f"{fileset}/-/{listed['path']}").raise_for_status().content
                    assert len(content) == listed["size"], listed
            assert http.get("/status").json()["status"] == "healthy"
    finally:
        server.kill()
    assert not list((tmp_path / "data" / "blobs" / "incoming").iterdir())


def _write(url: str, name: str, files: dict[str, str], models: set[str], enough: threading.Event) -> None:
    """Write until the server is gone, and note what it acknowledged."""
    with httpx.Client(base_url=url, timeout=60) as http:
        try:
            assert http.post(FILES, json={"name": name}).status_code == 200
            for number in range(10_000):
                content = f"{name} {number}".encode() * (1 + number % 7 * 10_000)
                path = f"{FILES}/{name}/-/{number}.txt"
                assert http.put(path, content=content).status_code == 200
                files[path] = hashlib.sha256(content).hexdigest()
                model = f"{name}-m{number}"
                assert http.post(MODELS, json={"name": model}).status_code == 201
                models.add(model)
                if number >= KILL_AFTER // WRITERS:
                    enough.set()
        except httpx.TransportError:
            return
