"""`tunesmith up` as a process: what it says, where it writes it, and who may read its files."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.live import FILES, PATIENCE_SECONDS, eventually


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "TUNESMITH_DATA_DIR": str(tmp_path / "data")}


def test_a_server_keeps_its_files_to_itself_and_its_words_apart(tmp_path: Path, environment: dict[str, str]) -> None:
    said, written = tmp_path / "said", tmp_path / "written"
    environment |= {"TUNESMITH" + "_PROT": "1", "TUNESMITH_PORT": "0"}  # in two pieces: it is no setting
    with said.open("w") as out, written.open("w") as log:
        command = [sys.executable, "-m", "tunesmith.cli.main", "up"]
        server = subprocess.Popen(command, stdout=out, stderr=log, env=environment, cwd=tmp_path, umask=0o000)
    try:
        found = eventually(lambda: re.search(r"listens on (\S+)", said.read_text()), "the server to listen")
        with httpx.Client(base_url=found.group(1)) as http:
            assert http.post(FILES, json={"name": "rows"}, headers={"x-request-id": "the-id"}).status_code == 200
            assert http.put(f"{FILES}/rows/-/a.txt", content=b"text").status_code == 200
            eventually(lambda: "the-id" in written.read_text(), "the request's line")
            data = tmp_path / "data"
            open_to_others = [path for path in [data, *data.rglob("*")] if path.stat().st_mode & 0o077]
            assert open_to_others == []
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE_SECONDS)
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    assert any("is TUNESMITH_PORT meant?" in line["message"] for line in lines)
    assert [line["request_id"] for line in lines if line.get("path") == FILES] == ["the-id"]
    assert "WARNING" not in said.read_text()


def test_garbage_is_collected_once_the_server_is_up(tmp_path: Path, environment: dict[str, str]) -> None:
    program = """
import gc, os
from tunesmith.server.main import serve
from tunesmith.settings import Settings
gc.disable()
serve(Settings.from_environment(), announce=lambda _: os._exit(10 + gc.isenabled()))
"""
    environment["TUNESMITH_PORT"] = "0"
    assert subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, check=False).returncode == 11


def test_a_setting_that_cannot_be_read_is_one_sentence(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "tunesmith.cli.main", "up"]
    environment["TUNESMITH_PORT"] = "http"
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "TUNESMITH_PORT='http' must be a whole number from 0 to 65535" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
