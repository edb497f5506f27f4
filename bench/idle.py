"""The idle server: how soon it is ready, how much memory it holds, and whether torch is mapped.

    python bench/idle.py

The peer is a bare FastAPI application on uvicorn, started the same way in the same run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

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
SETTLE_SECONDS = 3.0
START_SECONDS = 60.0


def main() -> None:
    """Measure both and print."""
    with tempfile.TemporaryDirectory() as data:
        ours = [sys.executable, "-m", "tunesmith.cli.main", "up", "--data-dir", data, "--port"]
        seconds, resident, mapped = measured(ours, 18180)
    bare_seconds, bare_resident, _ = measured([sys.executable, "-c", BARE], 18181)
    print(f"ready after {seconds:.2f} s, a bare FastAPI server after {bare_seconds:.2f} s")
    print(
        f"resident {resident:.0f} MiB, a bare FastAPI server {bare_resident:.0f} MiB: {resident / bare_resident:.2f}x"
    )
    print(f"torch is {'MAPPED' if mapped else 'not mapped'}")


def measured(command: list[str], port: int) -> tuple[float, float, bool]:
    """Seconds until ready, resident MiB when idle, and whether a torch library is mapped."""
    start = time.monotonic()
    with subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until_ready(port)
            seconds = time.monotonic() - start
            time.sleep(SETTLE_SECONDS)
            process = psutil.Process(server.pid)
            libraries = [mapping.path for mapping in process.memory_maps()]
            return seconds, process.memory_info().rss / 2**20, any("libtorch" in path for path in libraries)
        finally:
            server.terminate()


def wait_until_ready(port: int) -> None:
    """Ask until it answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.02)
    raise SystemExit(f"nothing answered on port {port} within {START_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
