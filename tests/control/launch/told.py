"""A rank that writes down what it finds; executed, or forked where it is imported."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def ready(run: Path) -> None:
    """Be ready for a run: written down, so that a test sees it."""
    (run / "ready").write_text(str(os.getpid()))


def main(run: Path) -> int:
    death = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(death))
    handlers = {name: signal.getsignal(getattr(signal, name)) for name in ("SIGTERM", "SIGHUP", "SIGCHLD", "SIGINT")}
    found = {
        "environment": {key: value for key, value in os.environ.items() if key not in ("TUNESMITH_KEEPER", "LC_CTYPE")},
        "marked": "TUNESMITH_KEEPER" in os.environ,
        "directory": str(Path.cwd()),
        "files": sorted(int(each.name) for each in Path("/proc/self/fd").iterdir())[:-1],
        "handlers": {name: str(handler) for name, handler in handlers.items()},
        "blocked": sorted(map(str, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        "own group": os.getpgid(0) == os.getpid(),
        "leads session": os.getsid(0) == os.getpid(),
        "dies with": death.value,
        "umask": os.umask(0o22),
        "last argument": sys.argv[-1],
        "unbuffered": sys.stdout.line_buffering or sys.stdout.write_through,
        "input": sys.stdin.read(),
    }
    print("said on out")
    print("said on err", file=sys.stderr)
    (run / "found.json").write_text(json.dumps(found))
    wanted = (run / "wanted").read_text()
    if wanted == "wait":
        time.sleep(600)
    if wanted == "raise":
        raise ValueError("on purpose")
    if wanted == "thread":
        threading.Thread(target=lambda: (time.sleep(0.2), (run / "later").write_text("done"))).start()
    if wanted == "exit":
        sys.exit(4)
    return 3 if wanted == "three" else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
