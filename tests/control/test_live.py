"""A job is watched as it goes: every event once, in order, also after a break, for many watchers and slow ones."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.client.samples import state
from tests.control.platform import Platform, allowing, shell
from tests.live import JOBS, LiveServer, Wire, eventually, settings
from tunesmith.api.jobs import JobState
from tunesmith.control import live as watching
from tunesmith.control.logs import Logged
from tunesmith.store.data_dir import DataDir

Event = dict[str, Any]


@pytest.fixture
def ready(small_trainer: None, wire: Wire) -> Wire:
    """A user who has a model and a data set."""
    wire.model()
    wire.dataset(behaviour="slow")
    return wire


def events(http: httpx.Client, name: str = "job", cursor: str = "", **query: Any) -> Generator[Event, None, None]:
    """The job's stream as it arrives: `event`, `id`, and `data` read."""
    headers = {"Last-Event-ID": cursor} if cursor else {}
    with http.stream("GET", f"{JOBS}/{name}/events", params=query, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        found: Event = {}
        for line in answer.iter_lines():
            key, _, value = line.partition(": ")
            if key:
                found[key] = json.loads(value) if key == "data" else value
            elif "event" in found:
                yield found
                found = {}


def points(seen: list[Event]) -> list[tuple[str, int]]:
    told = [event["data"]["points"] for event in seen if event["event"] == "metrics"]
    return [(point["series"], point["step"]) for new in told for point in new]


def lines(seen: list[Event]) -> list[str]:
    return [line["message"] for event in seen if event["event"] == "log" for line in event["data"]["lines"]]


def everything(wire: Wire) -> tuple[list[tuple[str, int]], list[str]]:
    """All points and lines of a job that has ended, as its other routes tell them."""
    series = wire.http.get(f"{JOBS}/job/metrics").json()
    log = wire.http.get(f"{JOBS}/job/logs", params={"limit": 1000}).json()["data"]
    return sorted((name, point["step"]) for name in series for point in series[name]), [each["message"] for each in log]


def test_a_job_is_seen_from_its_beginning_to_its_end_with_every_point_and_line_once(ready: Wire) -> None:
    assert ready.submit().status_code == 201
    seen = list(events(ready.http))
    assert seen[-1]["event"] == "end"
    assert seen[-1]["data"]["status"] == "completed"
    statuses = [event["data"]["status"] for event in seen if event["event"] == "status"]
    assert statuses[0] in ("created", "active")
    assert statuses[-1] == "active"
    assert all(
        "metrics" not in event["data"]["status_details"] for event in seen if event["event"] in ("status", "end")
    )
    expected_points, expected_lines = everything(ready)
    assert sorted(points(seen)) == expected_points
    assert sorted(lines(seen)) == sorted(expected_lines)
    steps = [step for series, step in points(seen) if series == "train_loss"]
    assert steps == sorted(steps)
    assert len({event["id"] for event in seen[:-1]}) == len(seen) - 1


def test_a_watcher_who_breaks_off_after_any_event_goes_on_where_it_was(ready: Wire) -> None:
    assert ready.submit().status_code == 201
    seen: list[Event] = []
    cursor = ""
    while not seen or seen[-1]["event"] != "end":
        stream = events(ready.http, cursor=cursor)
        seen.append(next(stream))
        stream.close()
        cursor = seen[-1]["id"]
    expected_points, expected_lines = everything(ready)
    assert sorted(points(seen)) == expected_points
    assert sorted(lines(seen)) == sorted(expected_lines)
    afterwards = list(events(ready.http))
    assert (sorted(points(afterwards)), sorted(lines(afterwards))) == (expected_points, sorted(expected_lines))
    assert [event["event"] for event in events(ready.http, cursor=cursor)] == ["end"]
    assert [event["event"] for event in events(ready.http, kinds="status")] == ["end"]
    assert {event["event"] for event in events(ready.http, kinds=["log"])} == {"log", "end"}


def test_a_platform_job_is_seen_with_what_its_steps_print(tmp_path: Path) -> None:
    with LiveServer(allowing(tmp_path)) as server:
        wire = Platform(server.http)
        steps = [shell("one", "for n in 1 2 3; do echo line $n; sleep 0.3; done"), shell("two", "echo more >&2")]
        assert wire.post(*steps).status_code == 201
        seen = list(events(server.http))
        assert lines(seen) == ["line 1", "line 2", "line 3", "[stderr] more"] == wire.log()
    assert seen[-1]["data"]["status"] == "completed"
    assert sum(event["event"] == "log" for event in seen) > 1


def test_who_cannot_be_followed_is_told_why(ready: Wire) -> None:
    missing = ready.http.get(f"{JOBS}/job/events")
    assert (missing.status_code, missing.json()["detail"]) == (404, "Job 'job' not found in workspace 'default'.")
    ready.submit()
    ready.submit("other", output={"name": "another"})
    cursor = next(events(ready.http))["id"]
    elsewhere = ready.http.get(f"{JOBS}/other/events", params={"cursor": cursor})
    assert elsewhere.status_code == 400
    assert "belongs to another job" in elsewhere.json()["detail"]
    for nonsense in ("x", "bm9uc2Vuc2U", "W10", "WyJ4IiwiIix7ImEiOi0xfSx7fV0"):
        answer = ready.http.get(f"{JOBS}/job/events", headers={"Last-Event-ID": nonsense})
        assert answer.status_code == 400
        assert "is not the id of an event" in answer.json()["detail"]
    assert ready.http.get(f"{JOBS}/job/events?kinds=gossip").status_code == 422


def test_deleting_the_job_ends_its_stream_without_an_end(ready: Wire) -> None:
    hang(ready)
    stream = events(ready.http)
    seen = [next(stream)]
    assert ready.http.delete(f"{JOBS}/job").status_code == 204
    began = time.monotonic()
    seen += stream
    assert "end" not in [event["event"] for event in seen]
    assert time.monotonic() - began < 3


def test_a_server_that_stops_lets_watchers_go_at_once(small_trainer: None, tmp_path: Path) -> None:
    seen: list[Event] = []
    with LiveServer(settings(tmp_path)) as server:
        wire = Wire(server.http)
        wire.model()
        wire.dataset(behaviour="hang")
        wire.submit()
        wire.wait("job", "active")
        http = httpx.Client(base_url=server.url)
        watcher = threading.Thread(target=lambda: seen.extend(events(http)), daemon=True)
        watcher.start()
        eventually(lambda: server.services.live.watched, "the watcher")
        server.server.stop()
        watcher.join(2)
        assert not watcher.is_alive()
        http.close()
    assert "end" not in [event["event"] for event in seen]


def test_a_state_that_comes_back_is_told_each_time_and_no_more(tmp_path: Path) -> None:
    """The cursor comes back with the state; what was read from there before is not news."""
    service = Told()

    async def watch() -> list[str]:
        live = watching.Live(service, DataDir(tmp_path), service)
        stream = await live.follow("default", "job", kinds=["status"])
        seen = []
        for phase in ("queued", "loading", "queued", "loading"):
            service.phase = phase
            live.stir()
            seen.append(await anext(stream))
        service.status = "completed"
        live.stir()
        async with asyncio.timeout(5):
            seen += [event async for event in stream]
        return [event.state.status_details["phase"] + event.event for event in seen if event and event.state]

    assert asyncio.run(watch()) == ["queuedstatus", "loadingstatus", "queuedstatus", "loadingstatus", "loadingend"]


class Told:
    """A job whose state is as the test says, in the place of the jobs and of the database."""

    phase = ""
    status = "active"

    async def state(self, *_: str, series: bool) -> JobState:
        assert not series
        return JobState.model_validate(state(self.status, phase=self.phase))

    async def read(self, *_: object) -> Logged:
        return Logged((await self.state(series=False)).id, "job", False, 1, "a", ())


def test_silence_is_broken_by_a_comment(ready: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "HEARTBEAT_SECONDS", 0.2)
    hang(ready)
    with ready.http.stream("GET", f"{JOBS}/job/events") as answer:
        assert next(line for line in answer.iter_lines() if line.startswith(":")) == ": nothing new"


def test_a_reader_who_dawdles_gets_everything_and_costs_no_memory(ready: Wire, live: LiveServer) -> None:
    ready.submit()
    stream = events(ready.http)
    seen = [next(stream)]
    with httpx.Client(base_url=live.url, timeout=30) as other:
        eventually(lambda: other.get(f"{JOBS}/job/status").json()["status"] == "completed", "the end")
    assert all(len(each.batches) <= watching.BATCHES for each in live.services.live.watched.values())
    seen += stream
    expected_points, expected_lines = everything(ready)
    assert (sorted(points(seen)), sorted(lines(seen))) == (expected_points, sorted(expected_lines))
    eventually(lambda: not live.services.live.watched, "the watcher to be forgotten")


def test_many_watchers_of_one_job_share_its_readings(
    ready: Wire, live: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang(ready)
    readings: list[float] = []
    read = watching.Live._read

    async def counted(self: watching.Live, *arguments: Any) -> Any:
        readings.append(time.monotonic())
        return await read(self, *arguments)

    monkeypatch.setattr(watching.Live, "_read", counted)

    def watch() -> None:
        with httpx.Client(base_url=live.url, timeout=30) as http:
            list(events(http))

    watchers = [threading.Thread(target=watch, daemon=True) for _ in range(10)]
    for watcher in watchers:
        watcher.start()
    eventually(lambda: sum(each.watchers for each in live.services.live.watched.values()) == 10, "ten watchers")
    time.sleep(1.5)  # all have caught up
    readings.clear()
    time.sleep(2.5 * watching.SLOW_SECONDS)
    assert 1 <= len(readings) < len(watchers)  # each by itself would have read twice
    ready.http.post(f"{JOBS}/job/cancel")
    for watcher in watchers:
        watcher.join(10)
    assert not any(watcher.is_alive() for watcher in watchers)


def hang(ready: Wire) -> None:
    """A job that trains and says nothing more."""
    ready.fileset("waits", {"train.jsonl": b'{"prompt": "w1", "completion": "w2"}\n' * 20, "behaviour.txt": b"hang"})
    assert ready.submit(dataset={"training": "waits"}).status_code == 201
    ready.wait("job", "active")
