"""The platform's API: latency, requests per CPU-second of the server, uploads, downloads, lists.

    python -m bench.api                                        # a server of its own, beside a bare FastAPI application
    python -m bench.api --models 100000 --mib 1024             # the whole of it, some minutes
    python -m bench.api --base-url http://a --against http://b # two platforms that run, by calls of the contract alone

The peer of the same run is a bare FastAPI application: a route with one indexed read of SQLite, one that inserts and
commits, one that receives, hashes, writes and fsyncs, one that answers with a file. Figures per CPU-second need the
server's process: of one started here, or `--pid`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

CLIENTS = 16
SMALL = 100_000
CHUNK = 1 << 20
START_SECONDS = 60.0
IDLE_SECONDS = 2.0
"""Before a server hangs up on a connection that says nothing."""
WORKSPACE = "bench"
MODELS = f"/apis/models/v2/workspaces/{WORKSPACE}/models"
FILESETS = f"/apis/files/v2/workspaces/{WORKSPACE}/filesets"


@dataclass
class Target:
    """A server under load: where it is, whose CPU it takes, and what its calls are named."""

    name: str
    url: str
    process: psutil.Process | None
    read: Callable[[int], str]
    create: tuple[str, Callable[[int], dict[str, str]]]
    small: Callable[[int], str]
    large: str
    threads: threading.local = field(default_factory=threading.local)

    def call(self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, size: int = 0) -> bytes:
        """One request on this thread's own connection; an answer that says no ends the benchmark."""
        connection, idle_since = getattr(self.threads, "connection", None), getattr(self.threads, "idle_since", 0.0)
        if connection is None or time.monotonic() - idle_since > IDLE_SECONDS:
            where = urlsplit(self.url)
            connection = self.threads.connection = http.client.HTTPConnection(where.hostname, where.port, timeout=600)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        headers = {"Content-Type": "application/octet-stream" if size else "application/json"}
        if size:
            headers["Content-Length"] = str(size)
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        if method == "GET" and path == self.large:
            count = 0
            while chunk := answer.read(CHUNK):
                count += len(chunk)
            said = str(count).encode()
        else:
            said = answer.read()
        self.threads.idle_since = time.monotonic()
        if answer.status >= 400:
            raise SystemExit(f"{self.name}: {method} {path} was answered {answer.status} {said[:300]!r}")
        return said

    def make(self, number: int) -> None:
        """Create one thing."""
        path, body = self.create
        self.call("POST", path, json.dumps(body(number)).encode())

    def cpu(self) -> float:
        """CPU-seconds of the server so far."""
        if self.process is None:
            return float("nan")
        times = self.process.cpu_times()
        return times.user + times.system


@dataclass(frozen=True)
class Rate:
    """How fast something was done."""

    per_second: float
    per_cpu_second: float


def median_ms(times: int, work: Callable[[int], object]) -> float:
    """Median of one call after another, in milliseconds."""
    work(0)
    took = []
    for number in range(1, times + 1):
        start = time.perf_counter()
        work(number)
        took.append(time.perf_counter() - start)
    return statistics.median(took) * 1000


def rate(target: Target, count: int, work: Callable[[int], object], clients: int = CLIENTS) -> Rate:
    """`count` calls from `clients` threads."""
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(-clients, 0)))
        cpu, start = target.cpu(), time.perf_counter()
        list(pool.map(work, range(count)))
        seconds, cpu = time.perf_counter() - start, target.cpu() - cpu
    return Rate(count / seconds, count / cpu if cpu else float("nan"))


def portions(total: int) -> Iterator[bytes]:
    """`total` bytes, the same chunk again and again."""
    chunk = bytes(range(256)) * (CHUNK // 256)
    for _ in range(total // CHUNK):
        yield chunk


@dataclass
class Report:
    """Lines of the table, a column per target."""

    targets: list[Target]

    def line(self, title: str, measure: Callable[[Target], float], unit: str) -> None:
        """Measure on each target and print."""
        self.row(title, [measure(target) for target in self.targets], unit)

    def row(self, title: str, values: list[float], unit: str) -> None:
        """Print one line: ours, each other, and ours over each other."""
        cells = "".join(f"{value:12,.1f}" for value in values)
        ratios = "".join(f"{values[0] / value:8.2f}x" for value in values[1:])
        print(f"{title:<46}{cells} {unit:<10}{ratios}", flush=True)


def measure(targets: list[Target], mib: int) -> None:
    """What every target can do."""
    report = Report(targets)
    print(f"{'':<46}" + "".join(f"{target.name:>12}" for target in targets))
    numbers = iter(range(10**6, 10**9, 10**5))
    for target in targets:
        for number in range(200):
            target.make(number)
    report.line("retrieve, p50", lambda t: median_ms(300, lambda n: t.call("GET", t.read(n % 200))), "ms")
    report.line("create, p50", lambda t: (base := next(numbers)) and median_ms(200, lambda n: t.make(base + n)), "ms")
    reads = [rate(target, 4000, lambda n, t=target: t.call("GET", t.read(n % 200))) for target in targets]
    report.row(f"reads, {CLIENTS} clients", [each.per_second for each in reads], "/s")
    report.row("reads per CPU-second of the server", [each.per_cpu_second for each in reads], "/CPU-s")

    def pair(target: Target, number: int) -> None:
        target.make(number)
        target.call("GET", target.read(number))

    pairs = []
    for target in targets:
        base = next(numbers)
        pairs.append(rate(target, 1500, lambda n, t=target, b=base: pair(t, b + CLIENTS + n)))
    report.row("create+read pairs per CPU-second", [each.per_cpu_second for each in pairs], "/CPU-s")
    content = bytes(SMALL)

    def put(target: Target, number: int) -> None:
        body = number.to_bytes(8, "big", signed=True) + content[8:]
        target.call("PUT", target.small(number), body, size=SMALL)

    ups = [rate(target, 2000, lambda n, t=target: put(t, n)) for target in targets]
    report.row(f"uploads of 100 KB, {CLIENTS} clients", [each.per_second for each in ups], "/s")
    downs = [rate(target, 2000, lambda n, t=target: t.call("GET", t.small(n))) for target in targets]
    report.row(f"downloads of 100 KB, {CLIENTS} clients", [each.per_second for each in downs], "/s")
    large(report, mib)


def large(report: Report, mib: int) -> None:
    """One large file up and down, the targets in turn, best of three."""
    total = mib * CHUNK

    def up(target: Target) -> float:
        start = time.perf_counter()
        target.call("PUT", target.large, portions(total), size=total)
        return mib / (time.perf_counter() - start)

    def down(target: Target) -> float:
        start = time.perf_counter()
        assert int(target.call("GET", target.large)) == total
        return mib / (time.perf_counter() - start)

    for title, work in ((f"{mib} MiB up", up), (f"{mib} MiB down", down)):
        best = [0.0] * len(report.targets)
        for _ in range(3):
            best = [max(so_far, work(target)) for so_far, target in zip(best, report.targets, strict=True)]
        report.row(title, best, "MiB/s")
    resident = [t.process.memory_info().rss / 2**20 if t.process else float("nan") for t in report.targets]
    report.row("resident after all that", resident, "MiB")


def lists(target: Target, count: int) -> None:
    """Pages of 100 among `count` models."""
    have = json.loads(target.call("GET", f"{MODELS}?page_size=1"))["pagination"]["total_results"]
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda n: target.make(10**8 + n), range(max(0, count - have))))
    last = -(-max(count, have) // 100)
    print(f"of {max(count, have):,} models, 100 listed (median of 20):")
    for query in (
        "sort=-created_at",
        "sort=name",
        f"sort=-updated_at&page={last}",
        f"sort=name&page={last}",
        "filter[base_model]=bench/base-7&sort=-created_at",
        "filter[base_model]=bench/base-7&sort=name",
        "filter[name]=m-100000042",
        "filter[name][$like]=0042",
        "filter[name][$like]=nothing-has-this-name",
    ):
        ms = median_ms(20, lambda _, q=query: target.call("GET", f"{MODELS}?page_size=100&{q}"))
        print(f"  {query:<54}{ms:8.1f} ms")


def platform(name: str, url: str, process: psutil.Process | None) -> Target:
    """A platform that runs, with a workspace and a fileset for this."""

    def body(number: int) -> dict[str, str]:
        return {"name": f"m-{number}", "base_model": f"bench/base-{number % 1000}"}

    def read(number: int) -> str:
        return f"{MODELS}/m-{number}"

    def small(number: int) -> str:
        return f"{FILESETS}/small/-/{number % 500}.bin"

    target = Target(name, url, process, read, (MODELS, body), small, f"{FILESETS}/large/-/large.bin")
    probe = http.client.HTTPConnection(urlsplit(url).hostname or "", urlsplit(url).port, timeout=60)
    for path, asked in (
        ("/apis/entities/v2/workspaces", {"name": WORKSPACE}),
        (FILESETS, {"name": "small"}),
        (FILESETS, {"name": "large"}),
    ):
        probe.request("POST", path, json.dumps(asked), {"Content-Type": "application/json"})
        answer = probe.getresponse()
        answer.read()
        if answer.status == 409 and path != FILESETS:
            raise SystemExit(f"{url} has a workspace '{WORKSPACE}' already: delete it first")
    return target


@contextmanager
def started(command: list[str]) -> Iterator[tuple[str, psutil.Process]]:
    """A server of our own on a free port, ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    connection.request("GET", "/health/ready")
                    if connection.getresponse().status == 200:
                        break
                except OSError:
                    if time.monotonic() > deadline or server.poll() is not None:
                        raise SystemExit(f"{command[:4]} did not start") from None
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}", psutil.Process(server.pid)
        finally:
            server.terminate()


def main() -> None:
    """Start what is to be started, measure, print."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--base-url", help="a platform that runs; default: one is started here")
    asked.add_argument("--pid", type=int, help="process of that platform, for figures per CPU-second")
    asked.add_argument("--against", help="a second platform, measured beside it")
    asked.add_argument("--models", type=int, default=2000, help="models among which lists are measured")
    asked.add_argument("--mib", type=int, default=256, help="size of the large file")
    given = asked.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if given.base_url:
            process = psutil.Process(given.pid) if given.pid else None
            targets = [platform("platform", given.base_url, process)]
        else:
            up = [sys.executable, "-m", "tunesmith.cli.main", "up", "--data-dir", str(folder / "data"), "--port"]
            targets = [platform("Tunesmith", *stack.enter_context(started(up)))]
        if given.against:
            targets.append(platform("against", given.against, None))
        bare = [sys.executable, str(Path(__file__).with_name("bare.py")), str(folder)]
        url, process = stack.enter_context(started(bare))
        targets.append(
            Target(
                "bare FastAPI",
                url,
                process,
                lambda number: f"/things/m-{number}",
                ("/things", lambda number: {"name": f"m-{number}", "base_model": f"bench/base-{number % 1000}"}),
                lambda number: f"/files/{number % 500}.bin",
                "/files/large.bin",
            )
        )
        measure(targets, given.mib)
        for target in targets[:-1]:
            lists(target, given.models)


if __name__ == "__main__":
    main()
