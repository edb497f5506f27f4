"""Stands between the server and an engine: starts its ranks, keeps what they print, writes down how they ended.

Started by file path, `python -I -S keeper.py LAUNCH.json`, in a session of its own, and made of the standard library
alone: it outlives the server that started it and costs a few megabytes. It is single-threaded on purpose: PDEATHSIG
follows the thread that forked, and only a single-threaded process may run Python between fork and exec.

Files, each replaced by rename: `keeper_file` says who keeps (before and again after the ranks start), `exit_file` how
the ranks ended (once no descendant is left). The exclusive lock is on the log: a second keeper of the same launch
leaves at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LINUX: bool = sys.platform == "linux"
NOT_NEEDED = 75
"""Exit code of a keeper that found its launch already kept."""
MARK = "TUNESMITH_KEEPER"
"""Environment variable of every rank, and so of all its descendants: which keeper they belong to."""
LINE_BYTES = 64 * 1024
"""Once so much of a line is there, it is kept as a piece: a bar of carriage returns must not fill our memory."""
SWEEP_SECONDS = 10.0
"""How long we wait for killed descendants; only one stuck in the kernel takes longer."""
STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"

Spawn = Callable[[Mapping[str, Any], Mapping[str, str]], Any]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def boot_id() -> str:
    """Names the time since the machine started: pids and start times mean nothing across two of them."""
    if LINUX:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for name in ("kern.bootsessionuuid", "kern.boottime"):  # boottime moves when the clock is set: second choice
        answer = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip():
            return answer.stdout.strip()
    return "unknown"


def started(pid: int) -> float:
    """When a process that has just been born was born.

    Linux: seconds since boot, which no setting of the clock can move. Elsewhere: seconds since 1970, by our clock.
    """
    if LINUX:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return int(ticks) / os.sysconf("SC_CLK_TCK")
    return time.time()


def crash_at(place: str) -> None:
    """As `tunesmith.handoff.crash`, which this file cannot import: die here if a test's environment says so."""
    if os.environ.get("TUNESMITH_CRASH_AT") == place:
        os.kill(os.getpid(), signal.SIGKILL)


def mark(boot: str, pid: int, born: float) -> str:
    """The value of MARK in everything that this keeper's ranks start."""
    return f"{boot}:{pid}:{born:.2f}"


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace `path` (mode 0600) atomically: temporary name, flush to disk, rename."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Log:
    """The log of one launch; holding its lock is what makes a process the keeper."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lost = 0

    def claim(self) -> bool:
        """Take the lock for as long as we live; False if another keeper has it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def say(self, stream: str, lines: list[bytes]) -> None:
        """Append whole lines, stamped. A full disk costs lines, never the run: the loss is noted when there is room."""
        prefix = f"{datetime.now(UTC).strftime(STAMP)} {stream} ".encode()
        content = b"".join(prefix + line + b"\n" for line in lines)
        if self._lost:
            content = (
                b"\n%serr keeper: %d lines lost, the log could not be written\n" % (prefix[:-4], self._lost) + content
            )
        try:
            while content:
                content = content[os.write(self._file, content) :]
            self._lost = 0
        except OSError:
            self._lost += len(lines)


class Pipe:
    """One stream of one rank, cut into lines."""

    def __init__(self, file: int, stream: str, log: Log) -> None:
        self.file = file
        self._stream = stream
        self._log = log
        self._rest = b""
        os.set_blocking(file, False)

    def read(self) -> bool:
        """Move what is there into the log; False at the end of the stream, when the last partial line is kept too."""
        try:
            chunk = os.read(self.file, LINE_BYTES)
        except BlockingIOError:
            return True
        *lines, rest = (self._rest + chunk).split(b"\n")
        if len(rest) >= LINE_BYTES or (rest and not chunk):
            lines.append(rest)
            rest = b""
        self._rest = rest
        if lines:
            self._log.say(self._stream, lines)
        return bool(chunk)

    def close(self) -> None:
        """Keep the partial line of a stream whose writer we gave up on."""
        if self._rest:
            self._log.say(self._stream, [self._rest])
        os.close(self.file)


class Rank:
    """One process of the engine; `code` is its exit code, negative for a signal, None while it runs."""

    def __init__(self, number: int, process: subprocess.Popen[bytes]) -> None:
        self.number = number
        self.process = process
        self.started = started(process.pid)
        self.code: int | None = None
        self.sent: set[int] = set()

    def send(self, number: signal.Signals) -> None:
        """Signal the rank, unless it is reaped: its pid is its own only until then."""
        if self.code is None:
            self.sent.add(number)
            os.kill(self.process.pid, number)


class Keeper:
    """One launch, from its first rank to its last descendant."""

    def __init__(self, launch: dict[str, Any], log: Log, spawn: Spawn) -> None:
        self._launch = launch
        self._spawn = spawn
        self._log = log
        self._ranks: list[Rank] = []
        self._failed: Rank | None = None
        self._unstartable = False
        self._rung = False
        self._deadline: float | None = None
        self._began = time.monotonic()
        self._out_of_memory = False
        self._oom_kills = oom_kills()
        self._selector = selectors.DefaultSelector()
        self._me: dict[str, Any] = {"pid": os.getpid(), "started": started(os.getpid()), "boot": boot_id()}
        self._listen()

    def introduce(self) -> None:
        """Write who we are, and whom we keep so far."""
        ranks = [{"pid": rank.process.pid, "started": rank.started} for rank in self._ranks]
        write_json(Path(self._launch["keeper_file"]), self._me | {"ranks": ranks})

    def run(self) -> None:
        """Start the ranks and stay until none runs, with their output in the log."""
        self._start()
        crash_at("keeper-ranks-started")
        self.introduce()
        while any(rank.code is None for rank in self._ranks):
            self._pump(None if self._deadline is None else max(0.0, self._deadline - time.monotonic()))
            self._reap()
            if self._rung or (self._failed and self._deadline is None):
                self._rung = False
                self._stop()
            if self._deadline is not None and time.monotonic() >= self._deadline:
                for rank in self._ranks:
                    rank.send(signal.SIGKILL)
                self._deadline = float("inf")

    def sweep(self) -> None:
        """End every descendant, then keep the last of the output."""
        deadline = time.monotonic() + SWEEP_SECONDS
        childless = LINUX and no_child_is_left()  # the subreaper of nobody: no need to look through all processes
        while not childless and time.monotonic() < deadline:
            for pid in self._descendants():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            childless = no_child_is_left()
            if not childless:
                time.sleep(0.005)
        while self._pump(0.0):
            pass
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, Pipe):
                key.data.close()

    def verdict(self) -> dict[str, Any]:
        """How it ended: the first rank that failed, or rank 0."""
        code = 127 if self._unstartable else self._failed.code if self._failed else 0
        assert code is not None
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "code": code if code >= 0 else None,
            "signal": signal_name(-code) if code < 0 else None,
            "rank": len(self._ranks) if self._unstartable else self._failed.number if self._failed else 0,
            "out_of_memory": self._out_of_memory,
            "killed_by_keeper": bool(self._failed and -code in self._failed.sent),
            "wall_seconds": time.monotonic() - self._began,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_rss_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            "ended": time.time(),
        }

    def _listen(self) -> None:
        """Have signals end a wait. Handlers rather than SIG_IGN: an ignored signal stays ignored in the ranks."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ)
        signal.signal(signal.SIGTERM, self._ring)
        signal.signal(signal.SIGINT, self._ring)
        signal.signal(signal.SIGHUP, lambda *_: None)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _ring(self, *_: object) -> None:
        self._rung = True

    def _start(self) -> None:
        count = self._launch["ranks"]
        common = self._launch["env"] | {MARK: mark(self._me["boot"], self._me["pid"], self._me["started"])}
        if count > 1:
            common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        for number in range(count):
            env = common | {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}
            try:
                process = self._spawn(self._launch, env)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                self._log.say(
                    "err", [f"keeper: cannot start {self._launch['argv'][:1]}: {error}".encode(errors="replace")]
                )
                self._unstartable = True
                self._deadline = time.monotonic()
                return
            self._ranks.append(Rank(number, process))
            assert process.stdout is not None
            assert process.stderr is not None
            for file, stream in ((process.stdout, "out"), (process.stderr, "err")):
                self._selector.register(file, selectors.EVENT_READ, Pipe(file.fileno(), stream, self._log))

    def _pump(self, seconds: float | None) -> bool:
        """Wait for output or a signal, at most so long (None: for ever), and keep the output; True if some came."""
        moved = False
        for key, _ in self._selector.select(seconds if seconds != float("inf") else None):
            if not isinstance(key.data, Pipe):
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, 4096)
            elif key.data.read():
                moved = True
            else:
                self._selector.unregister(key.fileobj)
                key.data.close()
        return moved

    def _reap(self) -> None:
        """Collect the dead: ranks, and orphans that fell to us as the subreaper."""
        by_pid = {rank.process.pid: rank for rank in self._ranks}
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                rank = by_pid.get(pid)
                if rank is None:
                    continue
                rank.code = rank.process.returncode = os.waitstatus_to_exitcode(status)
                if rank.code != 0 and self._failed is None:
                    self._failed = rank
                    self._out_of_memory = self._starved(rank)

    def _starved(self, rank: Rank) -> bool:
        """Was it the kernel, for want of memory? A SIGKILL that we did not send, and a counter that rose."""
        before, now = self._oom_kills, oom_kills()
        killed = rank.code == -signal.SIGKILL and signal.SIGKILL not in rank.sent
        return killed and before is not None and now is not None and now > before

    def _stop(self) -> None:
        """Ring at every rank; the time to SIGKILL runs from the first ring."""
        if self._launch["term_first"]:
            for rank in self._ranks:
                rank.send(signal.SIGTERM)
        if self._deadline is None:
            grace = self._launch["grace_seconds"] if self._launch["term_first"] else 0.0
            self._deadline = time.monotonic() + grace

    def _descendants(self) -> list[int]:
        """Linux: our tree, which as the subreaper we never lose anyone of. Elsewhere: the ranks' process groups."""
        if not LINUX:
            return [-rank.process.pid for rank in self._ranks]
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, IndexError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
        found = list(children.get(os.getpid(), []))
        for pid in found:  # grows while we walk it
            found += children.get(pid, [])
        return found


def execute(launch: Mapping[str, Any], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a rank as the program `argv`, in a process group of its own; it dies with us."""
    return subprocess.Popen(
        launch["argv"],
        cwd=launch["cwd"],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=die_with(os.getpid()) if LINUX else None,
        process_group=0,
    )


def no_child_is_left() -> bool:
    """Reap the dead; whether nobody is left to be."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def signal_name(number: int) -> str:
    """SIGKILL for 9; SIG40 for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def free_port() -> int:
    """A loopback port that was free a moment ago, for the ranks to meet at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def die_with(keeper: int) -> Any:
    """What a child runs before exec so that it is killed when the keeper, its parent, dies (Linux)."""
    libc = ctypes.CDLL(None)

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)

    return arrange


def oom_kills() -> int | None:
    """How many processes the kernel killed for want of memory, in our cgroup if it counts, else on this machine.

    None where nobody counts. cgroup v2, then v1, then the whole machine (the root cgroup has no memory.events).
    """
    if not LINUX:
        return None
    counters = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                counters.append(Path(f"/sys/fs/cgroup{path}/memory.events"))
            elif "memory" in controllers.split(","):
                counters.append(Path(f"/sys/fs/cgroup/memory{path}/memory.oom_control"))
    for counter in [*counters, Path("/proc/vmstat")]:
        with contextlib.suppress(OSError):
            for line in counter.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return None


def main(launch_file: Path, spawn: Spawn = execute) -> int:
    """Keep the launch that the file describes; the file, which holds secrets, is gone once we are known to keep it.

    `spawn` starts a rank in an environment; what it returns is what we need of a `Popen`.
    """
    try:
        launch = json.loads(launch_file.read_bytes())
    except FileNotFoundError:
        return NOT_NEEDED
    log = Log(Path(launch["log"]))
    if not log.claim() or Path(launch["keeper_file"]).exists():
        launch_file.unlink(missing_ok=True)
        return NOT_NEEDED
    if LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper = Keeper(launch, log, spawn)
    crash_at("keeper-before-introduction")
    keeper.introduce()
    crash_at("keeper-introduced")
    launch_file.unlink(missing_ok=True)
    try:
        keeper.run()
    finally:
        keeper.sweep()
    crash_at("keeper-before-verdict")
    write_json(Path(launch["exit_file"]), keeper.verdict())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
