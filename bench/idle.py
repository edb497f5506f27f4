"""The idle server: how soon it is ready, what that costs, how much memory it holds, and whether torch is mapped.

    python -m bench.idle

The peer is a bare FastAPI application on uvicorn, started the same way in the same run, in turns with ours. Medians;
seconds of the processor are those of the server's own process until it is ready.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from statistics import median

import httpx
import psutil

BARE = """
import sys, uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get("/health/ready")
async def ready(): return {"status": "ready"}
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""
RUNS = 7
SETTLE_SECONDS = 3.0
START_SECONDS = 60.0
ASK_SECONDS = 0.01


@dataclass(frozen=True)
class Start:
    """One start of a server."""

    seconds: float
    """Until it answered that it is ready."""
    cpu_seconds: float
    resident: float
    """MiB, when it has settled."""
    mapped: bool
    """Whether a torch library is."""


def main() -> None:
    """Measure both and print."""
    ours, bare = [], []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as data:
            ours.append(
                measured([sys.executable, "-m", "tunesmith.cli.main", "up", "--data-dir", data, "--port"], 18180)
            )
        bare.append(measured([sys.executable, "-c", BARE], 18181))
    for what, unit, of in (
        ("ready after", "s", [[start.seconds for start in starts] for starts in (ours, bare)]),
        ("processor", "s", [[start.cpu_seconds for start in starts] for starts in (ours, bare)]),
        ("resident", "MiB", [[start.resident for start in starts] for starts in (ours, bare)]),
    ):
        mine, theirs = map(median, of)
        print(f"{what:<12} {mine:6.2f} {unit}, a bare FastAPI server {theirs:6.2f} {unit}: {mine / theirs:.2f}x")
    print(f"torch is {'MAPPED' if any(start.mapped for start in ours) else 'not mapped'}")


def measured(command: list[str], port: int) -> Start:
    """Start it, wait until it is ready, let it settle, stop it."""
    began = time.monotonic()
    with subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            process = psutil.Process(server.pid)
            wait_until_ready(port)
            seconds, spent = time.monotonic() - began, process.cpu_times()
            time.sleep(SETTLE_SECONDS)
            libraries = [mapping.path for mapping in process.memory_maps()]
            return Start(
                seconds,
                spent.user + spent.system,
                process.memory_info().rss / 2**20,
                any("libtorch" in path for path in libraries),
            )
        finally:
            server.terminate()


def wait_until_ready(port: int) -> None:
    """Ask until it answers, with one client: a new one for each question would read certificates beside the start."""
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client() as client:
        while time.monotonic() < deadline:
            try:
                if client.get(f"http://127.0.0.1:{port}/health/ready").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                time.sleep(ASK_SECONDS)
    raise SystemExit(f"nothing answered on port {port} within {START_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
