"""The real process: it says where it listens, answers, and ends cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import ALLOWED, BASE, TOKEN
from tunesmith.handoff.deployment import SERVING_FILE, TOKEN_VARIABLE, Serving

DEADLINE_SECONDS = 90


def until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Look every 20 ms until it is true; the process must live, and the deadline hold."""
    end, pause = time.monotonic() + DEADLINE_SECONDS, threading.Event()
    while not true():
        assert process.poll() is None, "the process has ended"
        assert time.monotonic() < end, "it took too long"
        pause.wait(0.02)


@pytest.fixture
def process(deployment: Path) -> Iterator[subprocess.Popen[str]]:
    (deployment / SERVING_FILE).unlink(missing_ok=True)
    environment = {**os.environ, TOKEN_VARIABLE: TOKEN, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tunesmith.serve", str(deployment)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_it_says_where_it_listens_answers_and_ends_cleanly(deployment: Path, process: subprocess.Popen[str]) -> None:
    until((deployment / SERVING_FILE).exists, process)
    serving = Serving.read(deployment / SERVING_FILE)
    assert serving.pid == process.pid
    body = {"model": BASE, "prompt": "a", "ignore_eos": True}
    with httpx.Client(base_url=f"http://{serving.host}:{serving.port}", headers=ALLOWED, timeout=60) as http:
        assert http.get("/health").json() == {"status": "ok"}

        with http.stream("POST", "/v1/completions", json={**body, "max_tokens": 250, "stream": True}) as stream:
            next(stream.iter_lines())  # and hang up: the row must leave, or the next answer would wait for nothing
        answer = http.post("/v1/completions", json={**body, "max_tokens": 5}).json()
        assert answer["usage"]["completion_tokens"] == 5

        with http.stream("POST", "/v1/completions", json={**body, "max_tokens": 100, "stream": True}) as stream:
            lines = stream.iter_lines()
            first = next(lines)
            process.send_signal(signal.SIGTERM)
            told = [first, *(line for line in lines if line)]
    assert told[-1] == "data: [DONE]", "a request that runs at SIGTERM is answered in full"
    assert json.loads(told[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    _, log = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, log
    assert "POST /v1/completions 200" in log
    assert "Traceback" not in log


def test_a_directory_without_a_model_is_refused_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tunesmith.serve", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert done.returncode == 1
    assert "deployment.json does not exist" in done.stderr
    assert "Traceback" not in done.stderr
