"""What `tunesmith doctor` looks at on the machine: Python, packages, torch, GPU, memory, disk, open files.

Nothing here needs more than the base install, and nothing writes.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from tunesmith import __version__

State = Literal["ok", "warn", "bad"]

GB = 10**9
PYTHON = (3, 11)
LITTLE_MEMORY = 4 * GB
"""A small model in float32 with its gradients and Adam's two moments, and the server beside it."""
LITTLE_DISK = 10 * GB
NO_DISK = 1 * GB
OPEN_FILES = 1024
"""A connection, its upload and the database's files for each of some hundred clients."""
PATIENCE_SECONDS = 60
OPTIONAL = {"postgres": "TUNESMITH_DATABASE_URL", "s3": "filesets of S3 buckets"}
"""Extras that most installations do without, and what needs them."""
WANTED = {"server": "`tunesmith up`", "train": "training jobs", "serve": "serving models"}

Run = Callable[[list[str]], str]
"""Runs a program; its output, or OSError."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    todo: str = ""
    """What to do about it, where it is not fine."""


def run(command: list[str]) -> str:
    """The program's standard output; OSError with its last words if it fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} did not end within {PATIENCE_SECONDS} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise OSError(said[-1] if said else f"{command[0]} ended with status {done.returncode}")
    return done.stdout.strip()


def python() -> Check:
    """The interpreter."""
    found = f"{platform.python_version()}, {sys.executable}"
    if sys.version_info < PYTHON:
        return Check("python", "bad", found, "Tunesmith needs Python 3.11 or newer")
    return Check("python", "ok", found)


def extras(environment: Mapping[str, str], requirements: list[str] | None = None) -> list[Check]:
    """Which optional parts of this distribution are installed; its own metadata says what belongs to each."""
    wanted = _by_extra(metadata.requires("tunesmith") or [] if requirements is None else requirements)
    checks = []
    for extra in sorted({*WANTED, *OPTIONAL} & wanted.keys()):
        missing = sorted(name for name in wanted[extra] if not _installed(name))
        if not missing:
            checks.append(Check(f"extra {extra}", "ok", "installed"))
            continue
        found = f"without {', '.join(missing)}"
        todo = f"{WANTED.get(extra) or OPTIONAL[extra]} needs it: pip install 'tunesmith[{extra}]'"
        asked_for = extra == "postgres" and environment.get("TUNESMITH_DATABASE_URL")
        state: State = "bad" if asked_for else "ok" if extra in OPTIONAL else "warn"
        checks.append(Check(f"extra {extra}", state, found, todo))
    return checks


def accelerator(run: Run = run) -> list[Check]:
    """GPU and torch, and whether they know each other. torch is asked in a process of its own."""
    gpus, gpu = _gpu(run)
    if not _installed("torch"):
        return [
            gpu,
            Check("torch", "warn", "not installed", "training and serving need it: pip install 'tunesmith[all]'"),
        ]
    ask = "import torch; print(torch.__version__, torch.cuda.is_available())"
    try:
        version, sees = run([sys.executable, "-c", ask]).split()[-2:]
    except (OSError, ValueError) as error:
        found = f"{metadata.version('torch')} does not load: {error}"
        return [gpu, Check("torch", "bad", found, "install it again: pip install --force-reinstall torch")]
    if gpus and sees != "True":
        todo = "install a torch for your driver, see https://pytorch.org/get-started/locally, or train on the processor"
        return [gpu, Check("torch", "warn", f"{version}, which does not see the GPU", todo)]
    return [gpu, Check("torch", "ok", f"{version}, on {'the GPU' if gpus else 'the processor'}")]


def memory() -> Check:
    """Processors and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = f"{cores} processor cores, {total / GB:.0f} GB of memory"
    if total < LITTLE_MEMORY:
        return Check("machine", "warn", found, "train small models only: a job that does not fit ends with an error")
    return Check("machine", "ok", found)


def open_files(limit: int | None = None) -> Check:
    """How many files a process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        return Check("open files", "warn", f"at most {soft}", "allow more before `tunesmith up`: ulimit -n 4096")
    return Check("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft:,}")


def directory(path: Path) -> list[Check]:
    """The data directory, which need not exist yet, and the room on its disk."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    room = shutil.disk_usage(there)
    found = f"{room.free / GB:.1f} GB free of {room.total / GB:.0f} GB for {path}"
    todo = "make room, or choose another disk with --data-dir: a base model alone takes 2 bytes per parameter"
    state: State = "bad" if room.free < NO_DISK else "warn" if room.free < LITTLE_DISK else "ok"
    disk = Check("disk", state, found, "" if state == "ok" else todo)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        todo = f"make it yours (sudo chown -R $USER {there}), or choose another --data-dir"
        return [Check("data directory", "bad", f"{there} cannot be written", todo), disk]
    if there != path:
        return [Check("data directory", "ok", f"{path} does not exist yet; `tunesmith up` makes it"), disk]
    if path.stat().st_mode & 0o077:
        return [Check("data directory", "warn", f"{path} is open to other users", f"chmod 700 {path}"), disk]
    return [Check("data directory", "ok", str(path)), disk]


def version() -> Check:
    """Our own."""
    return Check("tunesmith", "ok", f"{__version__} on {platform.system()} {platform.machine()}")


def _gpu(run: Run) -> tuple[int, Check]:
    """How many GPUs, and what there is to say about them."""
    if shutil.which("nvidia-smi") is None:
        return 0, Check("gpu", "ok", "none that we know to use; jobs run on the processor")
    try:
        said = run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"])
    except OSError as error:
        todo = "its driver does not work: reboot after an update, or install it again"
        return 0, Check("gpu", "bad", f"nvidia-smi fails: {error}", todo)
    names = [line.strip() for line in said.splitlines() if line.strip()]
    if not names:
        return 0, Check("gpu", "ok", "none that we know to use; jobs run on the processor")
    return len(names), Check("gpu", "ok", "; ".join(names))


def _by_extra(requirements: list[str]) -> dict[str, set[str]]:
    """Packages of each extra, those of the extras it builds on included."""
    direct: dict[str, set[str]] = {}
    builds_on: dict[str, set[str]] = {}
    for line in requirements:
        found = re.fullmatch(r"([\w.-]+)(?:\[([\w,-]+)\])?[^;]*;.*\bextra == ['\"]([\w-]+)['\"].*", line)
        if found is None:
            continue
        name, inner, extra = found.groups()
        if name == "tunesmith":
            builds_on.setdefault(extra, set()).update((inner or "").split(","))
        direct.setdefault(extra, set()).update(() if name == "tunesmith" else (name,))
    return {
        extra: names.union(*(direct.get(it, ()) for it in builds_on.get(extra, ()))) for extra, names in direct.items()
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
