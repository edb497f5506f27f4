"""The published libraries of W&B and MLflow, in an environment of their own: 190 MB that no other test needs.

A run of the real trainer, paused and resumed, is recorded by W&B offline and sent to a small server that speaks the
part of MLflow's REST API that is used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.train.conftest import make_run, model_dir  # noqa: F401 - fixtures
from tests.train.runs import losses, said
from tunesmith.handoff.plan import MlflowPart, Plan, TrackersPart, WandbPart
from tunesmith.handoff.wish import Wish

LIBRARIES = ("mlflow-skinny>=3.0", "wandb>=0.19")


class Server(ThreadingHTTPServer):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.told: list[tuple[str, dict]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    """https://mlflow.org/docs/latest/rest-api.html"""

    server: Server

    def do_GET(self) -> None:
        error = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
        self._answer(error if "get-by-name" in self.path else {}, 404 if "get-by-name" in self.path else 200)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        call = self.path.partition("mlflow/")[2]
        self.server.told.append((call, body))
        info = {"run_id": "r1", "run_uuid": "r1", "experiment_id": "7", "status": "RUNNING", "start_time": 1}
        answers = {
            "experiments/create": {"experiment_id": "7"},
            "runs/create": {"run": {"info": info, "data": {}}},
            "runs/update": {"run_info": info},
        }
        self._answer(answers.get(call, {}))

    def _answer(self, body: dict, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    listening = Server()
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield listening
    listening.shutdown()
    listening.server_close()


@pytest.fixture(scope="module")
def libraries(tmp_path_factory) -> Path:
    """A directory for PYTHONPATH."""
    if given := os.environ.get("TUNESMITH_TEST_TRACKERS"):
        return Path(given)
    target = tmp_path_factory.mktemp("libraries")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", str(target), *LIBRARIES], check=True)
    return target


def test_a_resumed_run_is_one_run_in_both_trackers(make_run, server, libraries):  # noqa: F811
    run = make_run(data={"split_fraction": 0.2})
    trackers = TrackersPart(
        wandb=WandbPart(name="my job", project="p", tags=("a",)),
        mlflow=MlflowPart(name="my job", experiment_name="e", tracking_uri=server.url, tags={"team": "red"}),
    )
    Plan.read(run / "plan.json").model_copy(update={"trackers": trackers}).write(run / "plan.json")
    # Behind our own packages, so that nothing of ours is replaced by another version.
    start = "import sys, runpy; sys.path.append(sys.argv[1]); sys.argv[1:] = [sys.argv[2]]; "
    start += "runpy.run_module('tunesmith.train', run_name='__main__')"
    for attempt in (1, 2):
        if attempt == 1:
            Wish(wish="pause").write(run / "wish.json")
        environment = os.environ | {"TUNESMITH_ATTEMPT": str(attempt)}
        argv = [sys.executable, "-c", start, str(libraries), str(run)]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        (run / "wish.json").unlink(missing_ok=True)
    warnings = [event.message for attempt in (1, 2) for event in said(run, attempt) if event.kind == "warning"]
    assert len(warnings) == 2, warnings
    assert all("there is no WANDB_API_KEY, so the run is recorded offline" in each for each in warnings)
    calls = [call for call, _ in server.told]
    assert calls.count("runs/create") == 1
    created = dict(server.told)["runs/create"]
    assert (created["experiment_id"], created["run_name"]) == ("7", "my job")
    assert {"key": "team", "value": "red"} in created["tags"]
    sent = [metric for call, body in server.told if call == "runs/log-batch" for metric in body.get("metrics", [])]
    assert [metric["value"] for metric in sent if metric["key"] == "train/loss"] == losses(said(run, 2))
    assert [metric["value"] for metric in sent if metric["key"] == "val/loss"] == losses(said(run, 2), "validated")
    assert server.told[-1][1]["status"] == "FINISHED"
    recorded = list((run / "trackers/wandb").glob("offline-run-*/run-job-1.wandb"))
    assert len(recorded) == 2
    assert max(path.stat().st_size for path in recorded) > 1000
