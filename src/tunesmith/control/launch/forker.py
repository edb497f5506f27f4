"""Forks keepers for short work: one that starts afresh spends 60 to 100 ms of processor time on imports, a fork 2 ms.

Run by file path, `python -I -S forker.py`, this is a process that has imported the keeper's code and waits: each line
on its standard input is a launch, `{"launch": path, "log": path, "cwd": path}`, and becomes a keeper in a session of
its own. It ends with its standard input, that is with the server; the keepers go on. Like the keeper it is made of
the standard library alone, and single-threaded: only then may Python run on after a fork.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType


class Forker:
    """The server's end of it, started when it is first needed. Its methods may be called from any thread."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def warm(self) -> None:
        """Start it before it is needed: that takes a tenth of a second and more."""
        with self._lock:
            self._running()

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
                assert self._process.stdin is not None
                self._process.stdin.close()
                self._process.wait()
                self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._process


def main() -> int:
    """Fork until the standard input ends."""
    keeper = _keeper()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; the keepers set a handler of their own
    gc.collect()
    gc.freeze()  # shared pages stay shared
    for line in sys.stdin.buffer:
        if os.fork() == 0:
            os._exit(_become_keeper(keeper, json.loads(line)))
    return 0


def _become_keeper(keeper: ModuleType, told: Mapping[str, str]) -> int:
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
        return int(keeper.main(Path(told["launch"])))
    except BaseException:  # noqa: BLE001 - the main of a process: whatever it is goes to the log, and no further
        traceback.print_exc()
        sys.stderr.flush()
        return 1


def _keeper() -> ModuleType:
    """The keeper's code, which with -I is not on the import path."""
    spec = importlib.util.spec_from_file_location("keeper", Path(__file__).with_name("keeper.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
