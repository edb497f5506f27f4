"""`tunesmith up` as a process of its own, as a user starts it, for journeys that kill it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tests.live import PATIENCE_SECONDS, eventually
from tunesmith import Tunesmith

LISTENS = re.compile(r"listens on (http://\S+)")


class House:
    """A platform over one data directory; `up` and `kill` it as often as you like."""

    def __init__(self, data_dir: Path, module: str = "tunesmith.cli.main") -> None:
        self.data_dir = data_dir
        self.module = module
        """What is started as `python -m`."""
        self.output = data_dir.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def up(self, **environment: str) -> Tunesmith:
        """Start the server on a free port, wait until it says where it listens, and connect."""
        self.output.write_bytes(b"")
        with self.output.open("ab") as output:
            command = [sys.executable, "-m", self.module, "up", "--port", "0", "--data-dir", str(self.data_dir)]
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | environment)
        found = eventually(
            lambda: LISTENS.search(self.output.read_text()) or self.process.poll(),
            "the server to listen",
        )
        assert isinstance(found, re.Match), self.output.read_text()
        return Tunesmith(found[1])

    def kill(self) -> None:
        """kill -9 of the server alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def down(self) -> int:
        """Ctrl-C; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_SECONDS)

    def engines(self) -> list[psutil.Process]:
        """Every living process that works in the data directory, keepers too, but for the server and its forker."""
        found = []
        for process in psutil.process_iter():
            try:
                command = " ".join(process.cmdline())
                ours = str(self.data_dir) in command and process.status() != psutil.STATUS_ZOMBIE
                waits = "forker.py" in command and self.process is not None and process.ppid() == self.process.pid
            except psutil.Error:
                continue
            if ours and not waits and (self.process is None or process.pid != self.process.pid):
                found.append(process)
        return found

    def rank(self, phase: str = "train") -> psutil.Process:
        """The process of a run's phase, once it is there."""

        def known() -> list[dict[str, Any]]:
            files = list(self.data_dir.glob(f"*/*/{phase}.*.keeper.json"))
            return json.loads(files[0].read_text())["ranks"] if files else []

        return psutil.Process(eventually(known, f"a {phase} process")[0]["pid"])
