"""Jobs: how soon they are taken in, started and ended; what following many of them costs; how lists grow.

    python -m bench.jobs                             # a platform of its own, with a trainer that only talks
    python -m bench.jobs --listed 100000             # lists among so many jobs
    python -m bench.jobs --base-url http://a         # a platform that runs: only what needs no knowledge of its inside

The figures stand beside those of a bare FastAPI route with one committed insert (`bench/bare.py`), beside the start of
a process that does nothing (`python -I -S -c pass`), and beside what was seen of the reference implementation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.api import started
from tests.live import checkpoint

JOBS = "/apis/jobs/v2/workspaces/default/jobs"
AUTOMODEL = "/apis/customization/v2/workspaces/default/automodel/jobs"
FILESETS = "/apis/files/v2/workspaces/default/filesets"
MODELS = "/apis/models/v2/workspaces/default/models"
FINAL = ("completed", "error", "cancelled")
MANY = 50
TALK = {"steps": 6000, "per_second": 20}


def main() -> None:
    """Start what is to be started, measure, print."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--base-url", help="a platform that runs; default: one is started here")
    asked.add_argument("--listed", type=int, default=0, help="jobs among which lists are measured; 0 = not")
    asked.add_argument("--burst", type=int, default=200, help="jobs that are submitted at once")
    given = asked.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if given.base_url:
            generic(httpx.Client(base_url=given.base_url, timeout=60), given.burst)
            return
        limits(stack, folder)
        with ours(folder / "data") as (http, _):
            generic(http, given.burst)
            line(http, folder / "data")
        following(folder / "many")
        if given.listed:
            lists(folder / "listed", given.listed)


def limits(stack: ExitStack, folder: Path) -> None:
    """What nothing can be faster than, in this very run."""
    bare = [sys.executable, str(Path(__file__).with_name("bare.py")), str(folder)]
    url, _ = stack.enter_context(started(bare))
    http = httpx.Client(base_url=url)
    row("a bare insert over HTTP, p50", median_ms(100, lambda n: http.post("/things", json={"name": f"n{n}"})), "ms")
    nothing = [sys.executable, "-I", "-S", "-c", "pass"]
    row("a process that does nothing, p50", median_ms(20, lambda _: subprocess.run(nothing, check=True)), "ms")


def generic(http: httpx.Client, burst: int) -> None:
    """Jobs of one step that runs `true`."""

    def submit(name: str) -> None:
        executor = {"provider": "subprocess", "profile": "default", "command": ["true"]}
        body = {
            "name": name,
            "source": "bench",
            "spec": {},
            "platform_spec": {"steps": [{"name": "one"} | {"executor": executor}]},
        }
        answer = http.post(JOBS, json=body)
        if answer.status_code != 201:
            raise SystemExit(f"POST {JOBS} was answered {answer.status_code} {answer.text[:300]}")

    def to_end(number: int) -> None:
        submit(f"noop-{number}")
        ended(http, f"noop-{number}")

    row("no-op job to its end, p50 (reference: 4,900)", median_ms(15, to_end), "ms")
    began = time.perf_counter()
    for number in range(burst):
        submit(f"burst-{number}")
    posted = time.perf_counter() - began
    statuses = [ended(http, f"burst-{number}") for number in range(burst)]
    seconds = time.perf_counter() - began
    row("  POST in a burst, mean (reference: 100)", posted / burst * 1000, "ms")
    row(f"{burst} no-op jobs", burst / seconds, "jobs/s")
    row("  of them completed", statuses.count("completed"), f"of {burst}")


def line(http: httpx.Client, data_dir: Path) -> None:
    """Customization jobs with a trainer that says one sentence: fetch, rows, queue, train, register."""
    furnish(http, {"steps": 1, "per_second": 0})

    def post(number: int) -> None:
        submit_automodel(http, f"line-{number}")

    row("POST of a customization job while others run, p50", median_ms(30, post), "ms")
    for number in range(31):
        ended(http, f"line-{number}")
    begun, posted, launched = [], [], []
    for number in range(15):
        at = time.time()
        submit_automodel(http, f"start-{number}")
        posted.append(time.time() - at)
        ended(http, f"start-{number}")
        job = http.get(f"{JOBS}/start-{number}").json()["id"]
        launched.append((data_dir / "runs" / job / "prepare.1.keeper.json").stat().st_mtime - at)
        steps = http.get(f"{JOBS}/start-{number}/status").json()["steps"]
        log = http.get(f"{JOBS}/start-{number}/logs?limit=50").json()["data"]
        begun.append((_epoch(log[0]["timestamp"]) - at, _epoch(steps[-1]["updated_at"]) - at))
    row("POST, one job at a time, p50 (reference: 100)", statistics.median(posted) * 1000, "ms")
    row("  POST to the start of its data process, p50 (reference: 3,200)", statistics.median(launched) * 1000, "ms")
    row(
        "  POST to the first word of its data process, p50 (reference: 3,200)",
        statistics.median(b for b, _ in begun) * 1000,
        "ms",
    )
    row("  POST to its end, p50", statistics.median(e for _, e in begun) * 1000, "ms")


def following(data_dir: Path) -> None:
    """What it costs to follow many jobs that talk, and how soon a new server has all of them again."""
    with ours(data_dir, TUNESMITH_CPU_SLOTS=str(MANY), TUNESMITH_LEAVE_RUNNING="1") as (http, process):
        furnish(http, TALK)
        for number in range(MANY):
            submit_automodel(http, f"talk-{number}")
        wait(lambda: min(steps_of(http), default=0) > 0, 300)
        before, at, step = cpu(process), time.monotonic(), sum(steps_of(http))
        time.sleep(15)
        used, seconds = cpu(process) - before, time.monotonic() - at
        row(f"following {MANY} jobs of {TALK['per_second']} events/s: of one core", 100 * used / seconds, "%")
        row("  events applied", (sum(steps_of(http)) - step) / seconds, "/s")
        process.kill()
    at = time.monotonic()
    with ours(data_dir, TUNESMITH_CPU_SLOTS=str(MANY), TUNESMITH_LEAVE_RUNNING="1") as (http, process):
        ready = time.monotonic()
        seen = steps_of(http)
        wait(lambda: all(now > then for now, then in zip(steps_of(http), seen, strict=True)), 60)
        row(f"a new server: ready after (of {MANY} running jobs)", ready - at, "s")
        row("  all of them followed again, from then on", time.monotonic() - ready, "s")
        for number in range(MANY):
            http.post(f"{JOBS}/talk-{number}/cancel")
        wait(lambda: all(state == "cancelled" for state in states(http)), 120)


def lists(data_dir: Path, count: int) -> None:
    """100 of many jobs, by what can be asked for."""
    from tunesmith.store.data_dir import DataDir
    from tunesmith.store.database import Database

    data_dir.mkdir(parents=True)
    database = Database(DataDir(data_dir).database)
    asyncio.run(database.write(fill, count))
    database.close()
    with ours(data_dir) as (http, _):
        for query in (
            "sort=-created_at",
            f"sort=-created_at&page={count // 100}",
            "filter[status]=completed",
            "filter[source]=customization",
            "filter[source]=automodel",
            'filter={"created_at":{"$gte":"2026-01-01T00:30:00"}}',
            "filter[name][$like]=0042",
            "filter[name][$like]=nothing-has-this-name",
        ):
            ms = median_ms(20, lambda _, q=query: http.get(f"{JOBS}?page_size=100&{q}").raise_for_status())
            row(f"  100 of {count:,} jobs: {query}", ms, "ms")


def fill(tx: Any, count: int) -> None:
    """So many ended jobs, all of different moments."""
    from datetime import datetime, timedelta

    from sqlalchemy import insert

    from tunesmith.store.tables import jobs

    start = datetime.fromisoformat("2026-01-01T00:00:00")
    statuses = ("completed", "completed", "completed", "error", "cancelled")
    spec = {
        "model": "default/base",
        "dataset": {"training": "default/rows"},
        "output": {"name": "o", "type": "adapter"},
    }
    for first in range(0, count, 1000):
        rows = [
            {
                "id": f"platform-job-{number:09}",
                "workspace": "default",
                "name": f"job-{number:07}",
                "source": "customization",
                "backend": ("automodel", "unsloth", "rl")[number % 3],
                "spec": spec,
                "spec_digest": "",
                "inputs": {},
                "output_ref": f"default/o-{number}",
                "status": statuses[number % 5],
                "phase": "done",
                "priority": 0,
                "status_details": {"step": 10, "max_steps": 10, "train_loss": 0.5},
                "attempt_id": "a",
                "attempt": 1,
                "attempt_step": 0,
                "events_offset": 0,
                "created_at": start + timedelta(seconds=number),
                "updated_at": start + timedelta(seconds=number),
            }
            for number in range(first, min(count, first + 1000))
        ]
        tx.connection.execute(insert(jobs), rows)


@contextmanager
def ours(data_dir: Path, **environment: str) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """The platform with the trainer that talks."""
    command = [sys.executable, "-m", "bench.talker", "up", "--data-dir", str(data_dir), "--port"]
    told = {"TUNESMITH_ALLOW_SUBPROCESS_JOBS": "1", **environment}
    before = {name: os.environ.get(name) for name in told}
    os.environ |= told
    try:
        with started(command) as (url, process), httpx.Client(base_url=url, timeout=60) as http:
            yield http, process
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def furnish(http: httpx.Client, talk: dict[str, int]) -> None:
    """A model and rows."""
    rows = b'{"prompt": "w1", "completion": "w2"}\n' * 20
    for name, files in (
        ("base", checkpoint()),
        ("rows", {"train.jsonl": rows, "talk.json": json.dumps(talk).encode()}),
    ):
        http.post(FILESETS, json={"name": name}).raise_for_status()
        for path, content in files.items():
            http.put(f"{FILESETS}/{name}/-/{path}", content=content).raise_for_status()
    http.post(MODELS, json={"name": "base", "fileset": "default/base"}).raise_for_status()
    wait(lambda: http.get(f"{MODELS}/base").json()["spec"], 30)


def submit_automodel(http: httpx.Client, name: str) -> None:
    """One customization job."""
    spec = {"model": "base", "dataset": {"training": "rows"}, "training": {}}
    http.post(AUTOMODEL, json={"name": name, "spec": spec}).raise_for_status()


def ended(http: httpx.Client, name: str) -> str:
    """The job's final status, once it has one."""
    found: list[str] = []

    def final() -> bool:
        found[:] = [http.get(f"{JOBS}/{name}/status").json()["status"]]
        return found[0] in FINAL

    wait(final, 120, every=0.01)
    return found[0]


def steps_of(http: httpx.Client) -> list[int]:
    """How far each of the many jobs is."""
    data = http.get(f"{JOBS}?page_size={MANY}&sort=created_at").json()["data"]
    return [int(job["status_details"].get("step") or 0) for job in data]


def states(http: httpx.Client) -> list[str]:
    """Of the many jobs."""
    return [job["status"] for job in http.get(f"{JOBS}?page_size={MANY}&sort=created_at").json()["data"]]


def cpu(process: psutil.Process) -> float:
    """CPU-seconds of the server itself; its engines are not its children."""
    times = process.cpu_times()
    return times.user + times.system


def median_ms(times: int, work: Callable[[int], object]) -> float:
    """Median of one call after another, in milliseconds; the first one is not counted."""
    took = []
    for number in range(times + 1):
        start = time.perf_counter()
        work(number)
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:]) * 1000


def wait(true: Callable[[], object], seconds: float, every: float = 0.1) -> None:
    """Until it is true; SystemExit after so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:g} s in vain")
        time.sleep(every)


def row(title: str, value: float, unit: str) -> None:
    """One line of the table."""
    print(f"{title:<78}{value:10,.1f} {unit}", flush=True)


def _epoch(timestamp: str) -> float:
    from datetime import UTC, datetime

    return datetime.fromisoformat(timestamp).replace(tzinfo=UTC).timestamp()


if __name__ == "__main__":
    main()
