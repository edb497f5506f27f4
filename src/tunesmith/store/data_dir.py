"""The data directory: where everything lies, and the lock that keeps a second server out."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tunesmith.errors import ServerStartError

PRIVATE = 0o700


class DataDir:
    """Paths under one root, which is made private to its owner."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
            self.root.chmod(PRIVATE)
        except OSError as error:
            raise ServerStartError(f"the data directory {self.root} cannot be used: {error.strerror}") from None
        self._lock: int | None = None

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "tunesmith.db"

    @property
    def blobs(self) -> Path:
        """Bytes by digest."""
        return self.root / "blobs"

    def run(self, job_id: str) -> Path:
        """The directory of a job's run."""
        return self.root / "runs" / job_id

    def deployment(self, deployment_id: str) -> Path:
        """The directory of a serving process."""
        return self.root / "deployments" / deployment_id

    def lock(self) -> None:
        """Hold the directory until the process ends; ServerStartError when another server has it."""
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode().strip() or "unknown"
            os.close(handle)
            raise ServerStartError(
                f"{self.root} is in use by another Tunesmith server (process {holder}); stop it, "
                "or start this one with another --data-dir"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._lock = handle

    def unlock(self) -> None:
        """Let the next server in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
