"""The platform as a process of its own, from `tunesmith up` until nothing of it is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tunesmith import Tunesmith
from tunesmith.client.errors import APIConnectionError

START_SECONDS = 60
STOP_SECONDS = 30
LOG_LINES = 15
"""What is shown of the server's log when it dies."""


class PlatformError(Exception):
    """The platform did not start, or did not go."""


@contextmanager
def running(folder: Path) -> Iterator[Tunesmith]:
    """A client of a platform that keeps everything in `folder`, and stops at the end."""
    port, log = free_port(), folder / "server.log"
    command = [
        sys.executable,
        "-m",
        "tunesmith.cli.main",
        "up",
        "--port",
        str(port),
        "--data-dir",
        str(folder / "data"),
    ]
    with log.open("wb") as output:
        # In a session of its own: Ctrl-C is for us, and we stop the server when all else is tidied up.
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        with Tunesmith(f"http://127.0.0.1:{port}", "default") as client:
            wait_until_ready(client, server, log)
            yield client
    finally:
        stop(server)


def wait_until_ready(client: Tunesmith, server: subprocess.Popen[bytes], log: Path) -> None:
    """Until the platform answers; PlatformError with the end of its log if it dies instead."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            said = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
            raise PlatformError(f"the server ended with exit code {server.returncode}; its last words:\n{said}")
        try:
            if client.health() == {"status": "ready"}:
                return
        except APIConnectionError:
            pass
        time.sleep(0.1)
    raise PlatformError(f"the server was not ready after {START_SECONDS} s")


def stop(server: subprocess.Popen[bytes]) -> None:
    """As an operator does: ask first."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def left_over(folder: Path) -> list[str]:
    """Processes that still work in `folder`: `pid command`. Trainers and servers run in sessions of their own, so they
    are found by what they were started with and where they are."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if process.pid != os.getpid() and (str(folder) in " ".join(words) or _inside(process.cwd(), folder)):
                found.append(f"{process.pid} {' '.join(words)}")
        except psutil.Error:
            continue  # gone meanwhile, or somebody else's
    return found


def end_left_over(folder: Path) -> None:
    """End those processes at once: an interrupted demonstration leaves a trainer that would go on for nobody."""
    for line in left_over(folder):
        try:
            process = psutil.Process(int(line.split()[0]))
            process.kill()
            process.wait(5)
        except psutil.Error:
            continue  # gone meanwhile


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _inside(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder)
