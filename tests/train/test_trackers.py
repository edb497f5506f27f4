"""Trackers hear everything and disturb nothing.

The libraries weigh 190 MB, so small stand-ins take their place here; tests/soak/test_trackers.py runs the real ones.
"""

from __future__ import annotations

import importlib.machinery
import sys
import threading
import time
import types
from types import SimpleNamespace

import pytest

from tests.plans import plan
from tests.train.runs import finish, said
from tunesmith.errors import EngineError
from tunesmith.handoff.events import Failed, Finished, Progress, Stopped, Validated
from tunesmith.handoff.plan import MlflowPart, Plan, TrackersPart, WandbPart
from tunesmith.train import trackers
from tunesmith.train.trackers import Following, trackers_of


def progress(step: int) -> Progress:
    return Progress(step=step, epoch=1, loss=1 / step, learning_rate=0.1, grad_norm=2.0, tokens=10 * step, seconds=step)


FINISHED = Finished(step=2, exported_step=2, reason="last", files=())


class Fake:
    """A tracker that remembers, and fails or waits where it is told to."""

    def __init__(self, failing=(), gate=None):
        self.failing, self.gate = failing, gate
        self.points, self.last = [], "nobody said"

    def begin(self):
        self._do("begin")
        return "hello"

    def send(self, points):
        self._do("send")
        self.points += points

    def end(self, last):
        self._do("end")
        self.last = last

    def _do(self, what):
        if self.gate:
            self.gate.wait()
        if what in self.failing:
            raise RuntimeError(f"no {what} today")


def follow(tracker, events):
    """Say the events to one tracker; what the log holds then, and whether the tracker took all."""
    log = []
    following = Following(log.append)
    following.bring({"Fake": tracker})
    for event in events:
        following(event)
    return log, following.close()


def warnings(log):
    return [event.message for event in log if event.kind == "warning"]


def test_a_tracker_hears_each_metric_in_order_and_how_it_ended():
    fake = Fake()
    log, took = follow(fake, [progress(1), Validated(step=1, epoch=1, loss=0.7), progress(2), FINISHED])
    assert took
    assert [(step, values.get("train/loss"), values.get("val/loss")) for _, step, values in fake.points] == [
        (1, 1.0, None),
        (1, None, 0.7),
        (2, 0.5, None),
    ]
    assert fake.points[0][2]["train/tokens_per_second"] == 10
    assert fake.last == FINISHED
    assert warnings(log) == ["Fake: hello"]


def test_a_tracker_hears_what_the_run_reaches_as_far_as_it_is_known():
    fake = Fake()
    known = progress(1).model_copy(update={"padding": 0.2, "peak_memory": 1 << 30, "utilisation": 0.6})
    follow(fake, [known, progress(2), FINISHED])
    (_, _, first), (_, _, second) = fake.points
    reached = ("train/padding", "train/peak_memory_bytes", "train/utilisation")
    assert [first[name] for name in reached] == [0.2, 1 << 30, 0.6]
    assert [second.get(name) for name in reached] == [0.0, None, None]


@pytest.mark.parametrize(("failing", "sent"), [(["send"], 0), (["end"], 3), (["begin"], 0), (["send", "end"], 0)])
def test_a_tracker_that_fails_is_told_once_and_the_run_goes_on(failing, sent):
    fake = Fake(failing)
    log, took = follow(fake, [progress(1), progress(2), progress(3), FINISHED])
    assert took
    told = [message for message in warnings(log) if message != "Fake: hello"]
    assert told == [f"Fake is not told everything: RuntimeError: no {failing[0]} today"]
    assert len(fake.points) == sent
    assert [event.kind for event in log if event.kind != "warning"] == ["progress"] * 3 + ["finished"]


def test_a_tracker_that_hangs_holds_up_nothing(monkeypatch):
    monkeypatch.setattr(trackers, "LAST_SECONDS", 0.05)
    gate = threading.Event()
    before = time.monotonic()
    log, took = follow(Fake(gate=gate), [progress(step) for step in range(1, 20_000)])
    assert not took
    assert time.monotonic() - before < 5
    assert len([event for event in log if event.kind == "progress"]) == 19_999
    assert "has not taken the last metrics" in warnings(log)[0]
    gate.set()


def test_a_missing_library_ends_the_run_before_the_model_is_loaded(make_run):
    run = make_run()
    (run / "inputs/model").unlink()
    wanted = TrackersPart(wandb=WandbPart(name="job"))
    Plan.read(run / "plan.json").model_copy(update={"trackers": wanted}).write(run / "plan.json")
    assert finish(run) == 1
    (failed,) = said(run)
    assert failed.type == "TrainingConfigError"
    assert "pip install 'tunesmith[trackers]'" in failed.message


@pytest.fixture
def wandb(monkeypatch):
    """As much of it as is used."""
    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.said = []
    run = SimpleNamespace(
        log=lambda metrics, step: module.said.append((step, metrics)),
        finish=lambda exit_code: module.said.append(exit_code),
    )
    module.init = lambda **settings: module.said.append(settings) or run
    module.Settings = dict
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.mark.parametrize(
    ("key", "mode", "last", "code"),
    [("", "offline", FINISHED, 0), ("k", "online", Failed(type="", message="", detail=""), 1)],
)
def test_wandb_gets_the_jobs_run_and_is_offline_without_a_key(wandb, monkeypatch, tmp_path, key, mode, last, code):
    monkeypatch.setenv("WANDB_API_KEY", key)
    part = WandbPart(name="my job", project="p", tags=("a",), base_url="http://here")
    asked = plan().model_copy(update={"trackers": TrackersPart(wandb=part)})
    (tracker,) = trackers_of(asked, tmp_path).values()
    log, _ = follow(tracker, [progress(1), last])
    opened, sent, code_told = wandb.said
    assert (opened["mode"], opened["id"], opened["resume"]) == (mode, "job-1", "allow")
    assert (opened["name"], opened["project"], opened["entity"], opened["tags"]) == ("my job", "p", None, ("a",))
    assert opened["settings"]["base_url"] == "http://here"
    assert opened["config"]["optimizer.learning_rate"] == 0.01
    assert sent[0] == 1
    assert code_told == code
    assert ("recorded offline" in " ".join(warnings(log))) is (mode == "offline")


class MlflowServer:
    """`mlflow.MlflowClient`, for one server."""

    def __init__(self):
        self.calls = []

    def __call__(self, tracking_uri):
        assert tracking_uri == "http://there"
        return self

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return f"id of {name}"

    def create_run(self, experiment, run_name, tags):
        self.calls.append(("create", experiment, run_name, tags))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def update_run(self, run_id, status):
        self.calls.append(("update", run_id, status))

    def log_batch(self, run_id, metrics=(), params=()):
        self.calls += [("metric", step, value) for name, value, _, step in metrics if name == "train/loss"]
        self.calls += [("param", *param) for param in params if param[0] == "schedule.seed"]

    def set_terminated(self, run_id, status):
        self.calls.append(("end", run_id, status))


def test_mlflow_goes_on_with_the_same_run_until_it_has_ended(monkeypatch, tmp_path):
    module, server = types.ModuleType("mlflow"), MlflowServer()
    module.__spec__ = importlib.machinery.ModuleSpec("mlflow", None)
    module.MlflowClient = server
    module.entities = SimpleNamespace(Metric=lambda *given: given, Param=lambda *given: given)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    part = MlflowPart(name="my job", experiment_name="e", tags={"a": "b"}, description="d", tracking_uri="http://there")
    asked = plan().model_copy(update={"trackers": TrackersPart(mlflow=part)})
    for events in ([progress(1), Stopped(step=1, wish="pause")], [progress(2), FINISHED]):
        (tracker,) = trackers_of(asked, tmp_path).values()
        log, _ = follow(tracker, events)
        assert warnings(log) == []
    assert server.calls == [
        ("create", "id of e", "my job", {"a": "b", "mlflow.note.content": "d"}),
        ("param", "schedule.seed", "7"),
        ("metric", 1, 1.0),
        ("update", "r1", "RUNNING"),
        ("metric", 2, 0.5),
        ("end", "r1", "FINISHED"),
    ]
    nowhere = TrackersPart(mlflow=MlflowPart(name="my job"))
    with pytest.raises(EngineError, match=r"integrations\.mlflow\.tracking_uri: there is no address"):
        trackers_of(plan().model_copy(update={"trackers": nowhere}), tmp_path)
