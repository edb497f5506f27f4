"""Tells Weights & Biases and MLflow how a run goes, by their own libraries, beside the training and never in its way.

Each tracker lives in a thread of its own behind a queue of events. What it cannot do is told once, as a warning; the
run does not wait for it and does not fail by it. Its files lie in the run's `trackers/`, so that a later attempt goes
on with the same run over there.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from tunesmith.errors import EngineError
from tunesmith.handoff.events import Event, Failed, Finished, Progress, Stopped, Validated, Warned
from tunesmith.handoff.plan import MlflowPart, Plan, WandbPart

DIRECTORY = "trackers"
WAITING_EVENTS = 10_000
"""Held for a tracker that is slow; newer ones are not sent when there are more."""
LAST_SECONDS = 20.0
"""How long a run that has ended waits for its trackers to take the rest."""

Point = tuple[float, int, dict[str, float]]
"""Seconds since 1970, step, and the metrics of it."""


class Tracker(Protocol):
    """One service. Any call may raise or take its time."""

    def begin(self) -> str:
        """Open the run or find the one of an earlier attempt; returns what the user should know, or nothing."""
        ...

    def send(self, points: list[Point]) -> None:
        """Metrics, in the order they came."""
        ...

    def end(self, last: Event | None) -> None:
        """The last event of this attempt; the run over there stays open where a later attempt may go on with it."""
        ...


def trackers_of(plan: Plan, run: Path) -> dict[str, Tracker]:
    """Those that the plan asks for. EngineError (TrainingConfigError) where a library or an address is missing."""
    asked: dict[str, Tracker] = {}
    if wandb := plan.trackers.wandb:
        _demand("wandb", "wandb")
        asked["Weights & Biases"] = Wandb(wandb, plan, run / DIRECTORY)
    if mlflow := plan.trackers.mlflow:
        _demand("mlflow", "mlflow-skinny")
        asked["MLflow"] = Mlflow(mlflow, plan, run / DIRECTORY)
    return asked


class Following:
    """The event log, with trackers that hear what is said there."""

    def __init__(self, log: Callable[[Event], None]) -> None:
        self._log = log
        self._followers: list[_Follower] = []

    def bring(self, trackers: dict[str, Tracker]) -> None:
        """From now on these hear it, too."""
        self._followers += [_Follower(name, tracker, self._log) for name, tracker in trackers.items()]

    def __call__(self, event: Event) -> None:
        """Say it, and leave it for the trackers."""
        self._log(event)
        for follower in self._followers:
            follower.leave(event)

    def close(self) -> bool:
        """Let the trackers take the rest; False if one did not within LAST_SECONDS, which is told."""
        deadline = time.monotonic() + LAST_SECONDS
        for follower in self._followers:
            follower.leave(None)
        return not [follower for follower in self._followers if not follower.ended(deadline)]


class _Follower:
    def __init__(self, name: str, tracker: Tracker, warn: Callable[[Event], None]) -> None:
        self._name, self._tracker, self._say = name, tracker, warn
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._complained = False
        self._thread = threading.Thread(target=self._follow, name=name, daemon=True)
        self._thread.start()

    def leave(self, event: Event | None) -> None:
        """Puts an event into its queue; None = there are no more."""
        if self._events.qsize() < WAITING_EVENTS or not isinstance(event, Progress):
            self._events.put(event)

    def ended(self, deadline: float) -> bool:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._warn(f"it has not taken the last metrics within {LAST_SECONDS:.0f} s")
        return not self._thread.is_alive()

    def _follow(self) -> None:
        said = self._call(self._tracker.begin)
        if said is None:
            return
        if said:
            self._say(Warned(message=f"{self._name}: {said}"))
        last, open_ = None, True
        while open_:
            events = self._waiting()
            open_ = None not in events
            heard = [event for event in events if event is not None]
            last = heard[-1] if heard else last
            if points := list(_points(heard)):
                self._call(self._tracker.send, points)
        self._call(self._tracker.end, last)

    def _waiting(self) -> list[Event | None]:
        events = [self._events.get()]
        while not self._events.empty():
            events.append(self._events.get_nowait())
        return events

    def _call(self, call: Callable[..., Any], *given: Any) -> Any:
        """What it returns; None if it failed."""
        try:
            return call(*given)
        except Exception as error:  # noqa: BLE001 - a tracker call: whatever its library raises, the run goes on
            self._warn(f"{type(error).__name__}: {error}")
            return None

    def _warn(self, why: str) -> None:
        if not self._complained:
            self._say(Warned(message=f"{self._name} is not told everything: {why[:500]}"))
        self._complained = True


class Wandb:
    """Without WANDB_API_KEY the run is recorded on disk only, which W&B calls offline."""

    def __init__(self, part: WandbPart, plan: Plan, directory: Path) -> None:
        self._part, self._plan, self._directory = part, plan, directory

    def begin(self) -> str:
        import wandb

        part, keyed = self._part, bool(os.environ.get("WANDB_API_KEY"))
        self._directory.mkdir(exist_ok=True)
        self._run = wandb.init(
            mode="online" if keyed else "offline",
            id=self._plan.run,
            resume="allow",  # a later attempt has the same id
            name=part.name,
            project=part.project or None,
            entity=part.entity or None,
            tags=part.tags or None,
            notes=part.notes or None,
            dir=str(self._directory),
            config=_settings(self._plan),
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                **({"base_url": part.base_url} if part.base_url else {}),
            ),
        )
        if keyed:
            return ""
        return (
            "there is no WANDB_API_KEY, so the run is recorded offline; `wandb sync` sends "
            f"{self._directory / 'wandb'}. Name a secret in integrations.wandb.api_key_secret to send it at once"
        )

    def send(self, points: list[Point]) -> None:
        for _, step, metrics in points:
            self._run.log(metrics, step=step)

    def end(self, last: Event | None) -> None:
        self._run.finish(exit_code=1 if isinstance(last, Failed) else 0)


class Mlflow:
    """By its REST API; a server that does not answer is tried twice, not for MLflow's usual minutes."""

    def __init__(self, part: MlflowPart, plan: Plan, directory: Path) -> None:
        self._part, self._plan = part, plan
        self._known = directory / "mlflow.txt"
        """Holds the id over there, for later attempts."""
        self._address = part.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        if not self._address:
            raise EngineError(
                "integrations.mlflow.tracking_uri: there is no address to send to, in the job or in "
                "MLFLOW_TRACKING_URI; give it, or leave the mlflow block out",
                "TrainingConfigError",
            )

    def begin(self) -> str:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        import mlflow

        self._entities = mlflow.entities
        self._client = mlflow.MlflowClient(tracking_uri=self._address)
        if self._known.exists():
            self._id = self._known.read_text()
            self._client.update_run(self._id, status="RUNNING")
            return ""
        name = self._part.experiment_name or "Default"
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        tags = dict(self._part.tags)
        if self._part.description:
            tags["mlflow.note.content"] = self._part.description
        self._id = self._client.create_run(experiment, run_name=self._part.name, tags=tags).info.run_id
        params = [mlflow.entities.Param(key, str(value)[:500]) for key, value in _settings(self._plan).items()]
        self._client.log_batch(self._id, params=params)
        self._known.parent.mkdir(exist_ok=True)
        self._known.write_text(self._id)
        return ""

    def send(self, points: list[Point]) -> None:
        metrics = [
            self._entities.Metric(name, value, int(1000 * at), step)
            for at, step, values in points
            for name, value in values.items()
        ]
        for start in range(0, len(metrics), 1000):  # the server takes no more at a time
            self._client.log_batch(self._id, metrics=metrics[start : start + 1000])

    def end(self, last: Event | None) -> None:
        if isinstance(last, Finished):
            self._client.set_terminated(self._id, "FINISHED")
        elif isinstance(last, Failed):
            self._client.set_terminated(self._id, "FAILED")
        elif isinstance(last, Stopped) and last.wish == "cancel":
            self._client.set_terminated(self._id, "KILLED")


def _points(events: Iterable[Event]) -> Iterable[Point]:
    """The metrics that events speak of."""
    for event in events:
        if isinstance(event, Progress):
            values = {
                "train/loss": event.loss,
                "train/learning_rate": event.learning_rate,
                "train/grad_norm": event.grad_norm,
                "train/tokens_per_second": event.tokens / max(event.seconds, 1e-9),
                "train/padding": event.padding,
                "epoch": float(event.epoch),
            }
            if event.peak_memory:
                values["train/peak_memory_bytes"] = float(event.peak_memory)
            if event.utilisation is not None:
                values["train/utilisation"] = event.utilisation
            yield event.at, event.step, values
        elif isinstance(event, Validated):
            yield event.at, event.step, {"val/loss": event.loss}


def _settings(plan: Plan) -> dict[str, Any]:
    """What was decided, by dotted path, for the tracker's table of settings."""

    def flat(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
        if not isinstance(value, dict):
            yield prefix, value
            return
        for key, inner in value.items():
            yield from flat(f"{prefix}.{key}" if prefix else key, inner)

    said = plan.model_dump(mode="json", exclude={"trackers": True, "version": True, "data": {"chat_template"}})
    return dict(flat("", said))


def _demand(module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise EngineError(
            f"integrations.{module} needs the package {package}, which is not installed on this machine: "
            "pip install 'tunesmith[trackers]', or leave the block out",
            "TrainingConfigError",
        )
