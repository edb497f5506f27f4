"""Forks keepers, and what they keep: one that starts afresh spends 60 to 100 ms of processor time on imports, a fork 2.

Run by file path, `python -I -S forker.py`, this is a process that has imported the keeper's code and waits: each line
on its standard input is a launch, `{"launch": path, "log": path, "cwd": path}`, and becomes a keeper in a session of
its own. It ends with its standard input, that is with the server; the keepers go on. Like the keeper it is made of
the standard library alone, and single-threaded: only then may Python run on after a fork.

Run as `python -P forker.py MODULE IDLE_SECONDS DIRECTORY` it has imported MODULE as well, and a launch that names one
of the modules which came with it is not executed: its rank is a fork of its keeper. A trainer begins so without the 5
CPU-seconds of its imports. The line `{"ready": cwd}` has `MODULE.ready(cwd)` import what a launch there needs beyond;
READY is the answer, and what it says first. It leaves when nobody has asked for so long, and works in DIRECTORY, which
only says whose it is.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

READY = b"."
"""What a forker with a module says when it has imported what it should."""


class Forker:
    """The server's end of it, started when it is first needed. Its methods may be called from any thread."""

    def __init__(
        self, env: Mapping[str, str], module: str = "", idle_seconds: float = 0.0, directory: Path = Path("/")
    ) -> None:
        """With a `module`: keepers and ranks are forked where it is imported, until nobody has asked for so long."""
        self._env = dict(env)
        self._command = [sys.executable, "-I", "-S", __file__]
        if module:
            self._command = [sys.executable, "-P", __file__, module, str(idle_seconds), str(directory)]
        self._module = module
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: set[Path] = set()
        """What this process was asked to be ready for."""
        self._unanswered = 0
        self.failed = False
        """Whether it has ended with something still to be imported: it is not tried again."""

    def warm(self, cwd: Path | None = None) -> None:
        """Start it before it is needed: that takes a tenth of a second, with a module several seconds. Have the module
        made ready for a launch in `cwd`."""
        with self._lock:
            self.failed |= self._died_early()
            if self.failed:
                return
            process = self._running()
            if cwd is None or cwd in self._asked:
                return
            assert process.stdin is not None
            self._asked.add(cwd)
            self._unanswered += 1
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps({"ready": str(cwd)}).encode() + b"\n")
                process.stdin.flush()

    def ready(self) -> bool:
        """Whether it runs and has imported what it should by now; does not wait."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                return False
            if process.stdout is not None and select.select([process.stdout], [], [], 0)[0]:
                self._unanswered -= len(os.read(process.stdout.fileno(), 4096)) // len(READY)
            return self._unanswered == 0

    def fork(self, launch: Path, log: Path, cwd: Path) -> bool:
        """Ask for a keeper; False where none can be had this way, or the forker has just died."""
        if sys.platform != "linux":  # elsewhere system libraries do not survive a fork
            return False
        line = json.dumps({"launch": str(launch), "log": str(log), "cwd": str(cwd)}).encode() + b"\n"
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            try:
                process.stdin.write(line)
                process.stdin.flush()
            except BrokenPipeError:
                return False
        return True

    def close(self) -> None:
        """Let it end; the keepers that it forked go on."""
        with self._lock:
            if self._process is not None:
                if self._unanswered:  # it is in the middle of its imports
                    self._process.terminate()
                self._drop()

    def _drop(self) -> None:
        assert self._process is not None
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._process = None

    def _died_early(self) -> bool:
        return self._process is not None and self._process.poll() is not None and self._unanswered > 0

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._drop()
        if self._process is None:
            self._asked, self._unanswered = set(), int(bool(self._module))
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self._module else subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._process


def main(module: str = "", idle_seconds: float | None = None) -> int:
    """Fork until the standard input ends, or nobody has asked for so long (None: for ever)."""
    keeper = _keeper()
    ready: Callable[[Path], None] = importlib.import_module(module).ready if module else lambda _: None
    if module and (threads := len(list(Path("/proc/self/task").iterdir()))) > 1:
        sys.stderr.write(f"{module} has started {threads - 1} threads, which do not survive a fork\n")
        return 1
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; the keepers set a handler of their own
    kept_open = _open_files() if module else set()
    if module:
        os.write(1, READY)
    gc.collect()
    gc.freeze()  # shared pages stay shared
    for line in _lines(idle_seconds):
        told = json.loads(line)
        if "ready" in told:
            ready(Path(told["ready"]))
            os.write(1, READY)
        elif os.fork() == 0:
            os._exit(_become_keeper(keeper, told, kept_open))
    return 0


def _lines(idle_seconds: float | None) -> Iterator[bytes]:
    """What comes in, a whole line at a time, until the end or a silence of so long."""
    rest = b""
    while select.select([0], [], [], idle_seconds)[0]:
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _become_keeper(keeper: ModuleType, told: Mapping[str, str], kept_open: set[int]) -> int:
    """As if started afresh: a session, standard input and output, a working directory and a parent of its own."""
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(told["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.close(nothing)
        os.close(log)
        os.chdir(told["cwd"])

        def spawn(launch: Mapping[str, Any], env: Mapping[str, str]) -> Any:
            if launch["ranks"] > 1 or launch["module"] not in sys.modules:
                return keeper.execute(launch, env)
            return Forked(launch, env, kept_open, keeper.die_with(os.getpid()))

        return int(keeper.main(Path(told["launch"]), spawn))
    except BaseException:  # noqa: BLE001 - the main of a process: whatever it is goes to the log, and no further
        traceback.print_exc()
        sys.stderr.flush()
        return 1


class Forked:
    """A rank that is a fork of its keeper, as far as the keeper knows of `Popen`.

    It finds what a process of its own would find: environment, directory, standard streams, process group, signals, no
    other open files, and death with its keeper, which `tie` arranges.
    """

    def __init__(
        self,
        launch: Mapping[str, Any],
        env: Mapping[str, str],
        kept_open: set[int],
        tie: Callable[[], None],
    ) -> None:
        self.returncode: int | None = None
        (out, its_out), (err, its_err) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            tie()
            self._settle(its_out, its_err, kept_open)
            _run(launch, env)
        os.close(its_out)
        os.close(its_err)
        self.stdout, self.stderr = os.fdopen(out, "rb", 0), os.fdopen(err, "rb", 0)

    def _settle(self, out: int, err: int, kept_open: set[int]) -> None:
        """Leave behind what is the keeper's: its signals, its group, its lock on the log."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setpgid(0, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        for each in _open_files() - kept_open:
            os.close(each)


def _run(launch: Mapping[str, Any], env: Mapping[str, str]) -> NoReturn:
    """What `argv` would do, then the end of the process as Python has it."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(launch["cwd"])
    sys.argv = list(launch["argv"])[-2:]
    status = _status_of(sys.modules[launch["module"]].main, Path(sys.argv[-1]))
    threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - as Python ends: threads that are no daemons,
    atexit._run_exitfuncs()  # noqa: SLF001 - then what was asked for at exit; raising would end the keeper's frames
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _status_of(work: Callable[[Path], int], run: Path) -> int:
    try:
        return int(work(run))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the main of a process, as Python itself ends one
        traceback.print_exc()
        return 1


def _open_files() -> set[int]:
    """The numbers of all open files but the listing itself."""
    found = set()
    for each in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            os.fstat(int(each.name))
            found.add(int(each.name))
    return found


def _keeper() -> ModuleType:
    """The keeper's code, which with -I is not on the import path."""
    spec = importlib.util.spec_from_file_location("keeper", Path(__file__).with_name("keeper.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    if len(sys.argv) > 1:
        os.chdir(sys.argv[3])
    sys.exit(main(sys.argv[1], float(sys.argv[2])) if len(sys.argv) > 1 else main())
