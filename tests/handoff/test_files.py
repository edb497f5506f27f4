"""What the towers hand over: whole or not at all, of this version, and nothing unknown."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.plans import plan
from tunesmith.errors import EngineError
from tunesmith.handoff.crash import VARIABLE
from tunesmith.handoff.events import EventLog, Failed, Progress, Warned, as_json, read_events
from tunesmith.handoff.plan import Plan, TrackersPart
from tunesmith.handoff.probe import Probe, ProbedToken, disagreement
from tunesmith.handoff.wish import WISH_FILE, Wish, read_wish


def test_a_wish_is_there_when_it_was_written_and_none_before(tmp_path: Path) -> None:
    assert read_wish(tmp_path) is None
    Wish(wish="pause").write(tmp_path / WISH_FILE)
    assert read_wish(tmp_path) == Wish(wish="pause")
    assert [path.name for path in tmp_path.iterdir()] == [WISH_FILE]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"version": 2, "wish": "cancel"}', "has version 2; this build reads 1"),
        ('{"version": 1, "wish": "dance"}', "is not a lawful Wish"),
        ('{"version": 1, "wish": "cancel", "colour": "red"}', "is not a lawful Wish"),
        ('{"version": 1', "is not a lawful Wish"),
    ],
)
def test_a_file_of_another_shape_is_refused_by_name(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / WISH_FILE).write_text(content)
    with pytest.raises(EngineError, match=why):
        read_wish(tmp_path)


def test_events_come_back_as_they_were_said_from_any_offset(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path, 0) == ([], 0)
    say = EventLog(path)
    first, second = Warned(message="a\nb"), Failed(type="CudaError", message="é", detail="")
    say(first)
    events, offset = read_events(path, 0)
    assert events == [first]
    say(second)
    assert read_events(path, offset)[0] == [second]
    assert as_json(second)["kind"] == "failed"


def test_a_line_longer_than_one_look_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    long = Failed(type="DatasetFormatError", message="m", detail="x" * 5000)
    EventLog(path)(long)
    assert read_events(path, 0, limit=64)[0] == [long]


def test_half_a_line_of_a_killed_process_is_cut_off_before_the_next_one_speaks(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path)(Warned(message="whole"))
    with path.open("ab") as file:
        file.write(b'{"kind": "warn')
    offset = read_events(path, 0)[1]
    EventLog(path)(Warned(message="next"))
    (event,) = read_events(path, offset)[0]
    assert isinstance(event, Warned)
    assert event.message == "next"


def test_a_disk_that_takes_half_a_line_keeps_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    say = EventLog(path)
    say(Warned(message="whole"))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            say(Warned(message="x" * 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("where", "passed"), [("", 3), ("elsewhere", 3), ("here", 0), ("here:3", 2)])
def test_a_process_dies_at_the_place_that_a_test_names(where: str, passed: int) -> None:
    code = "from tunesmith.handoff.crash import crash_at\nfor n in range(3): crash_at('here'); print(n, flush=True)"
    environment = os.environ | ({VARIABLE: where} if where else {})
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, env=environment)
    assert done.returncode == (0 if passed == 3 else -signal.SIGKILL)
    assert len(done.stdout.splitlines()) == passed


def test_a_plan_from_before_there_were_trackers_asks_for_none(tmp_path: Path) -> None:
    old = plan().model_dump(mode="json", exclude={"trackers"})
    (tmp_path / "plan.json").write_text(json.dumps(old))
    assert Plan.read(tmp_path / "plan.json").trackers == TrackersPart()


def test_a_number_that_is_none_survives_the_way(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    nan = float("nan")
    EventLog(path)(Progress(step=1, epoch=1, loss=nan, learning_rate=0, grad_norm=nan, tokens=1, seconds=1))
    (event,) = read_events(path, 0)[0]
    assert isinstance(event, Progress)
    assert math.isnan(event.loss)


def test_a_line_that_is_no_event_is_not_swallowed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps({"kind": "rumour"}) + "\n")
    with pytest.raises(ValidationError):
        read_events(path, 0)


def probe(compute: str, way: float) -> Probe:
    """Two tokens at -1 and -2 nats, `way` nats from the base."""
    top = tuple(ProbedToken(token=i, trained=-i, base=-i - way) for i in (1, 2))
    return Probe(prompt_ids=(1,), compute=compute, top=top)


@pytest.mark.parametrize(
    ("trainer", "server", "way", "off", "agrees"),
    [
        ("fp32", "fp32", 8.0, 0.0005, True),
        ("fp32", "fp32", 8.0, 0.01, False),
        ("fp32", "bf16", 0.0, 0.2, True),
        ("bf16", "fp32", 0.0, 0.3, False),
        ("bf16", "bf16", 8.0, 1.9, True),
        ("bf16", "bf16", 8.0, 2.1, False),
        ("bf16", "bf16", 8.0, float("nan"), False),
    ],
)
def test_a_probe_is_measured_by_the_way_from_the_base(
    trainer: str, server: str, way: float, off: float, agrees: bool
) -> None:
    why = disagreement(probe(trainer, way), [-1 + off, -2 + off], server)
    assert (why == "") is agrees
