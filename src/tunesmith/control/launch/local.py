"""Starts, finds, stops and reads about engine processes on this machine, each under a keeper of its own.

What is known of a launch lies in its run: `{phase}.{attempt}.keeper.json` (who keeps it), `.exit.json` (how it
ended) and `logs/{phase}.{attempt}.log`. So a server that restarts finds everything again, and a launch that it had
started without recording it is adopted, never started twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

import psutil

from tunesmith.control.launch import keeper
from tunesmith.control.launch.forker import Forker
from tunesmith.errors import EngineError

Phase = Literal["prepare", "train", "serve", "step"]
Stream = Literal["out", "err"]

START_SECONDS = 10.0
"""How long a keeper may take to say who it is; it takes about 0.1 s."""
FORK_SECONDS = 2.0
"""How long a forked one may take, before one is started afresh."""
END_SECONDS = 5.0
"""How long we wait for killed processes to be gone."""
LOG_BYTES = 4 << 20
"""The most log text held in memory at once."""

_SAME_START_SECONDS = 2.0
"""psutil adds the boot time by today's clock and we take it off again: a clock that is set between the two reads shifts
the difference by whole seconds. No system gives a pid out again that soon."""

_PASSED_ON = re.compile(
    r"HOME|LANG|LANGUAGE|LC_\w+|LD_LIBRARY_PATH|LOGNAME|PATH|TMPDIR|TZ|USER|VIRTUAL_ENV|XDG_CACHE_HOME|PYTHON\w*"
    r"|(HTTPS?|NO)_PROXY|CURL_CA_BUNDLE|REQUESTS_CA_BUNDLE|SSL_CERT_(DIR|FILE)"
    r"|TUNESMITH_(CHECKPOINT_SECONDS|CRASH_AT)"
    r"|(CUDA|HF|KMP|MKL|NCCL|NVIDIA|OMP|OPENBLAS|PYTORCH|TOKENIZERS|TORCH|TRANSFORMERS|TRITON)_\w+",
    re.IGNORECASE,
)
_SECRET = re.compile(r"(^|_)(CREDENTIALS?|KEY|PASSWORD|SECRET|TOKEN)(_|$)", re.IGNORECASE)

_children: dict[int, subprocess.Popen[bytes]] = {}
"""The keepers that this process is the parent of, and so has to reap."""


@dataclass(frozen=True)
class Identity:
    """Which process: a pid alone is used again, by another process or after a restart of the machine."""

    boot: str
    pid: int
    started: float
    """Linux: seconds since boot, which setting the clock does not move. Elsewhere: seconds since 1970."""


@dataclass(frozen=True)
class Launch:
    """What a keeper is told, in a file of mode 0600 that it deletes once it keeps: `env` holds secrets."""

    argv: list[str]
    cwd: str
    env: dict[str, str]
    """The whole environment of a rank, but for what the keeper adds (RANK, WORLD_SIZE and friends)."""
    ranks: int
    log: str
    keeper_file: str
    exit_file: str
    grace_seconds: float
    """From the first SIGTERM to SIGKILL."""
    term_first: bool
    """False: a stop is SIGKILL at once, for work that has nothing to save."""
    module: str = ""
    """Its `main(Path(argv[-1]))` does what `argv` does. A keeper in which it is imported forks that instead."""


@dataclass(frozen=True)
class Exit:
    """How a launch ended, by its first rank that failed (rank 0 if none did)."""

    code: int | None
    """None if a signal ended it, or nobody knows."""
    signal: str | None
    rank: int
    out_of_memory: bool
    """The kernel killed it for want of memory. Best effort, and only on Linux."""
    killed_by_keeper: bool
    """The signal was the keeper's own: asked to stop, or a sibling had failed."""
    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    """Of the largest single process."""
    ended: float
    """Seconds since 1970."""
    lost: str = ""
    """Why nobody knows how it ended; empty if the keeper wrote it down."""

    def how(self) -> str:
        """How it ended, in words for the user: `exit code 1`, `rank 2: killed by SIGKILL (out of memory)`."""
        if self.lost:
            return self.lost
        if self.signal is None:
            words = f"exit code {self.code}"
        elif self.killed_by_keeper:
            words = f"stopped with {self.signal}"
        else:
            words = f"killed by {self.signal}" + (" (out of memory)" if self.out_of_memory else "")
        return f"rank {self.rank}: {words}" if self.rank else words


@dataclass(frozen=True)
class LogLine:
    """One line that a rank printed."""

    at: datetime
    stream: Stream
    text: str
    """Bytes that are not UTF-8 show as U+FFFD. A line of over 64 KiB may come as several."""


def engine_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What an engine may know of the server's environment (paths, devices, threads: no secret), and `extra`.

    Secrets of the job come in `extra`. Output is unbuffered, and the working directory is not on the import path.
    """
    passed = {
        name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name) and not _SECRET.search(name)
    }
    return {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"} | passed | dict(extra)


async def start(
    run: Path,
    phase: Phase,
    attempt: int,
    argv: list[str],
    env: Mapping[str, str],
    ranks: int = 1,
    grace_seconds: float = 30,
    term_first: bool = True,
    cwd: Path | None = None,
    forker: Forker | None = None,
    module: str = "",
) -> Identity:
    """Start `ranks` processes of `argv` in the directory `cwd` (None = the run), under a keeper that outlives us.

    A launch that exists already, running or ended, is not started again: its keeper's identity is returned. An `argv`
    that cannot be executed ends with code 127 and the reason in the log. EngineError if no keeper could be started. A
    `forker` starts keepers faster, and one that has imported `module` (see `Launch`) the ranks too.
    """
    run = run.absolute()  # noqa: ASYNC240 - asks for the working directory, no more
    launch = Launch(
        argv=list(argv),
        cwd=str(cwd or run),
        env=dict(env),
        ranks=ranks,
        log=str(log_path(run, phase, attempt)),
        keeper_file=str(_keeper_path(run, phase, attempt)),
        exit_file=str(_exit_path(run, phase, attempt)),
        grace_seconds=grace_seconds,
        term_first=term_first,
        module=module,
    )
    return await asyncio.to_thread(_start, run, phase, attempt, launch, forker)


def find(run: Path, phase: Phase, attempt: int) -> Identity | None:
    """The keeper of a launch, alive or not; None if it was never started."""
    try:
        known = json.loads(_keeper_path(run, phase, attempt).read_bytes())
    except FileNotFoundError:
        return None
    return Identity(known["boot"], known["pid"], known["started"])


def alive(identity: Identity) -> bool:
    """Is it still that very process? A zombie is dead, and reaped if it was our child."""
    return _process(identity) is not None


def has_exited(run: Path, phase: Phase, attempt: int) -> bool:
    """Whether its keeper has written how it ended: one call to the system."""
    return _exit_path(run, phase, attempt).exists()


def exit_facts(run: Path, phase: Phase, attempt: int) -> Exit | None:
    """How the launch ended, as its keeper wrote it; None while it runs, or if its keeper was lost."""
    try:
        return Exit(**json.loads(_exit_path(run, phase, attempt).read_bytes()))
    except FileNotFoundError:
        return None


def lost(run: Path, phase: Phase, attempt: int, identity: Identity) -> Exit:
    """End what a dead keeper left behind; the Exit says that it was lost, or what it did write in the end.

    Blocks up to a few seconds: call it off the event loop. The keeper must not be alive. May be repeated.
    """
    assert not alive(identity), f"keeper {identity.pid} is alive: stop it instead"
    facts = exit_facts(run, phase, attempt)
    _end(identity, _ranks(run, phase, attempt))
    if facts is not None:
        return facts
    why = "its keeper was lost" + ("" if identity.boot == keeper.boot_id() else ": the machine was restarted")
    return Exit(None, None, 0, False, False, 0.0, 0.0, 0, ended=time.time(), lost=why)


def ring(identity: Identity) -> bool:
    """SIGTERM to the keeper, which passes it on to its ranks; False if it is gone."""
    process = _process(identity)
    if process is None:
        return False
    try:
        process.terminate()
    except psutil.NoSuchProcess:
        return False
    return True


async def stop(identity: Identity, timeout: float) -> None:  # noqa: ASYNC109 - patience, not cancellation
    """Ring, wait at most `timeout` seconds, then SIGKILL the keeper and all it keeps. Nothing of it runs afterwards.

    A `timeout` above the launch's grace lets the keeper finish by itself and write how it ended; else ask `lost`.
    """
    deadline = time.monotonic() + timeout
    ring(identity)
    while alive(identity):
        if time.monotonic() >= deadline:
            await asyncio.to_thread(_end, identity, [])
            return
        await asyncio.sleep(0.02)


def log_path(run: Path, phase: Phase, attempt: int) -> Path:
    """Where the ranks' output is kept."""
    return run / "logs" / f"{phase}.{attempt}.log"


def read_log(run: Path, phase: Phase, attempt: int, after_line: int = 0, limit: int = 1000) -> list[LogLine]:
    """Whole lines after the first `after_line`: at most `limit`, and fewer if they are long (4 MiB in all).

    Go on with `after_line` raised by the number of lines that came; none means the end for now.
    """
    lines: list[LogLine] = []
    size = 0
    try:
        with log_path(run, phase, attempt).open("rb") as file:
            for number, raw in enumerate(_whole_lines(file)):
                if len(lines) >= limit or size >= LOG_BYTES:
                    break
                if number >= after_line:
                    lines.append(log_line(raw, file))
                    size += len(raw)
    except FileNotFoundError:
        pass
    return lines


def last_lines(run: Path, phase: Phase, attempt: int, n: int) -> list[LogLine]:
    """The last `n` whole lines, fewer if they are long (4 MiB in all)."""
    try:
        with log_path(run, phase, attempt).open("rb") as file:
            start_of_tail = file.seek(0, os.SEEK_END)
            tail = b""
            while start_of_tail > 0 and tail.count(b"\n") <= n and len(tail) < LOG_BYTES:
                step = min(start_of_tail, 64 * 1024)
                start_of_tail = file.seek(start_of_tail - step)
                tail = file.read(step) + tail
            whole = tail.split(b"\n")[1 if start_of_tail else 0 : -1]
            return [log_line(raw, file) for raw in whole[max(0, len(whole) - n) :]]
    except FileNotFoundError:
        return []


def _keeper_path(run: Path, phase: Phase, attempt: int) -> Path:
    return run / f"{phase}.{attempt}.keeper.json"


def _exit_path(run: Path, phase: Phase, attempt: int) -> Path:
    return run / f"{phase}.{attempt}.exit.json"


def _start(run: Path, phase: Phase, attempt: int, launch: Launch, forker: Forker | None) -> Identity:
    found = find(run, phase, attempt)
    if found:
        return found
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)
    launch_path = run / f"{phase}.{attempt}.launch.json"
    log = log_path(run, phase, attempt)
    log.parent.mkdir(mode=0o700, exist_ok=True)
    keeper.write_json(launch_path, asdict(launch))
    if forker and forker.fork(launch_path, log, run) and (forked := _await_fork(lambda: find(run, phase, attempt))):
        return forked
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, str(launch_path)],
            cwd=run,
            env=engine_environment({}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        os.close(output)
    _children[process.pid] = process
    return _await_keeper(process, lambda: find(run, phase, attempt), log, launch_path)


def _await_fork(found: Callable[[], Identity | None]) -> Identity | None:
    """The identity of a forked keeper; None if it takes so long that another had better be started: one will keep."""
    deadline = time.monotonic() + FORK_SECONDS
    while time.monotonic() < deadline:
        if identity := found():
            return identity
        time.sleep(0.002)
    return None


def _await_keeper(
    process: subprocess.Popen[bytes], found: Callable[[], Identity | None], log: Path, launch_path: Path
) -> Identity:
    """The identity of the launch's keeper: `process`, or one that an earlier server started and that came first."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        ended = process.poll()  # before looking, so that what it wrote last is seen
        identity = found()
        if identity:
            return identity
        if ended not in (None, keeper.NOT_NEEDED):
            break
        time.sleep(0.005)
    if process.poll() is None:
        process.kill()
        process.wait()
    identity = found()
    if identity:
        return identity
    launch_path.unlink(missing_ok=True)
    raise EngineError(f"no process could be started: its keeper ended with {process.returncode}; {log} may say why")


def _process(identity: Identity) -> psutil.Process | None:
    """The living process of that identity, if any; a dead child of ours is reaped."""
    _reap(identity.pid)
    if identity.boot != keeper.boot_id():
        return None
    try:
        process = psutil.Process(identity.pid)
        same = abs(_started(process) - identity.started) <= _SAME_START_SECONDS
        if same and process.status() != psutil.STATUS_ZOMBIE:
            return process
    except psutil.NoSuchProcess:
        return None
    _reap(identity.pid)  # it may have died between the two looks
    return None


def _reap(pid: int) -> None:
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        _children.pop(pid, None)


def _started(process: psutil.Process) -> float:
    """As the keeper counts. psutil adds the boot time by today's clock on Linux, so it comes off again."""
    return process.create_time() - (psutil.boot_time() if keeper.LINUX else 0.0)


def _ranks(run: Path, phase: Phase, attempt: int) -> list[Identity]:
    try:
        known = json.loads(_keeper_path(run, phase, attempt).read_bytes())
    except FileNotFoundError:
        return []
    return [Identity(known["boot"], rank["pid"], rank["started"]) for rank in known["ranks"]]


def _end(identity: Identity, ranks: list[Identity]) -> None:
    """SIGKILL the keeper, its ranks and all that descends from them, until none is left or END_SECONDS are over."""
    if identity.boot != keeper.boot_id():
        return
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        left = _kept(identity, ranks)
        if not left:
            break
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=0.2)
    alive(identity)  # reaps it


def _kept(identity: Identity, ranks: list[Identity]) -> list[psutil.Process]:
    """Keeper first, then whatever descends from it or a rank, by parentage and by the mark in its environment.

    The mark finds those whose parents are dead already: they belong to the system's first process now.
    """
    roots = [process for process in map(_process, [identity, *ranks]) if process]
    found = {process.pid: process for process in roots}
    for root in roots:
        try:
            found |= {child.pid: child for child in root.children(recursive=True)}
        except psutil.NoSuchProcess:
            continue
    mark = keeper.mark(identity.boot, identity.pid, identity.started)
    for process in psutil.process_iter():
        try:
            if process.environ().get(keeper.MARK) == mark:
                found.setdefault(process.pid, process)
        except psutil.Error:
            continue
    return list(found.values())


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines with their newline taken off; an unfinished last one is not there yet."""
    for line in file:
        if line.endswith(b"\n"):
            yield line[:-1]


def log_line(raw: bytes, file: IO[bytes]) -> LogLine:
    """A stamped line; one without a stamp is the keeper's own last word, dated by the file."""
    head, text = raw[:32], raw[32:]
    try:
        at = datetime.strptime(head[:27].decode("ascii"), keeper.STAMP).replace(tzinfo=UTC)
        if head[27:] not in (b" out ", b" err "):
            raise ValueError(head)
    except ValueError:
        at = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
        return LogLine(at, "err", raw.decode(errors="replace"))
    return LogLine(at, "err" if head[28:31] == b"err" else "out", text.decode(errors="replace"))
