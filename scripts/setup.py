"""Makes `.venv` with everything the project needs; does nothing when nothing changed. `make setup` runs it.

It runs before anything is installed, so it knows the standard library only. What is worth its care is torch: the
ordinary index gives Linux a CUDA build, 5 GB with its libraries, of which a machine without an NVIDIA GPU can use
nothing that the 1.2 GB of a CPU build would not give. `choose_torch` is that rule, docs/decisions/0005 its reasons.

`TORCH_INDEX=url` names the index for torch and overrules the rule; `PYTHON=` names the interpreter.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_INDEX_PATIENCE_S = 5
HEARTBEAT_S = 20
LAST_LINES = 15
PUBLISHED_CLIENTS = {
    "TUNESMITH_NEMO_PYTHON": ".venv-nemo",
    "TUNESMITH_NEMO_MICROSERVICES_PYTHON": ".venv-nemo-microservices",
}
"""Variable that names an interpreter with the client -> the environment that is made without it."""

ROOT = Path(__file__).resolve().parent.parent


# --- what is decided, without touching anything ---------------------------------------------------------------------


@dataclass(frozen=True)
class Torch:
    """Where torch comes from, and what we say about it."""

    index: str | None
    """None = wherever pip's own settings lead."""
    because: str


def choose_torch(
    given_index: str | None,
    system: str,
    nvidia: bool,
    settings_offer_cpu: Callable[[], bool],
    cpu_index_answers: Callable[[], bool],
) -> Torch:
    """The rule. The two questions cost a network call each and are asked only when the answer matters."""
    if given_index:
        return Torch(given_index, f"from {given_index}, as TORCH_INDEX says")
    if system != "Linux":
        return Torch(None, "the ordinary build, which is small on this system")
    if nvidia:
        return Torch(None, "with CUDA, for the NVIDIA GPU that is here (about 5 GB)")
    if settings_offer_cpu():
        return Torch(None, "the CPU build that pip's settings offer")
    if cpu_index_answers():
        return Torch(CPU_INDEX, f"the CPU build from {CPU_INDEX}")
    return Torch(
        None,
        f"with CUDA, about 5 GB instead of 1.2 GB, although no NVIDIA GPU is here: {CPU_INDEX} cannot be reached. "
        "If you know another index with a CPU build: stop, and run again with TORCH_INDEX=url",
    )


def offers_cpu_build(listing: str, version: str) -> bool:
    """Whether the answer of `pip index versions torch` holds the CPU build of `version`."""
    return re.search(rf"(?<![\w.+]){re.escape(version)}\+cpu(?![\w.+])", listing) is not None


def pinned(constraints: str, package: str) -> str:
    """The version of `package` that `constraints.txt` names."""
    found = re.search(rf"^{re.escape(package)}==(\S+)$", constraints, re.MULTILINE)
    if not found:
        raise SystemExit(f"constraints.txt has no line {package}==<version>")
    return found.group(1)


def inputs_digest(root: Path) -> str:
    """Changes with dependencies, pins and this file; the linters' rules in pyproject.toml do not count."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    parts = [
        json.dumps([project["project"], project["build-system"], project["tool"].get("hatch")], sort_keys=True),
        (root / "constraints.txt").read_text(),
        (root / "scripts" / "setup.py").read_text(),
        (root / "scripts" / "published_client.py").read_text(),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Stamp:
    """What a finished environment was made from. It is written last, so without one nothing is finished."""

    inputs: str
    root: str
    """An environment knows its own path: one that was moved or copied is no good."""
    torch_index: str | None

    def current(self, inputs: str, root: Path, given_index: str | None) -> bool:
        """Whether there is nothing to do. No TORCH_INDEX means: as it was."""
        return self.inputs == inputs and self.root == str(root) and given_index in (None, self.torch_index)


def only_index(index: str, environment: Mapping[str, str], pip_settings: str) -> dict[str, str]:
    """An environment in which pip knows `index` and no other source, but still its proxy and certificates.

    `pip_settings` is the answer of `pip config list`.
    """
    sources = {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONSTRAINT"}
    narrowed = {name: value for name, value in environment.items() if name not in sources}
    for key in ("cert", "client-cert", "proxy", "trusted-host", "timeout", "keyring-provider"):
        if found := re.search(rf"^(?:global|install)\.{key}='(.*)'$", pip_settings, re.MULTILINE):
            narrowed.setdefault("PIP_" + key.upper().replace("-", "_"), found.group(1))
    return narrowed | {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index}


# --- what is done ---------------------------------------------------------------------------------------------------


class Environment:
    """The virtual environment and its pip."""

    def __init__(self, root: Path, folder: str = ".venv") -> None:
        self.root = root
        self.folder = root / folder
        self.python = self.folder / "bin" / "python"
        self.log = self.folder / "setup.log"
        self._stamp = self.folder / "setup.json"
        self._unfinished = self.folder / "unfinished"
        self._environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0"}

    def stamp(self) -> Stamp | None:
        """None when the environment is not finished."""
        try:
            return Stamp(**json.loads(self._stamp.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def finish(self, stamp: Stamp) -> None:
        """Say that everything is there."""
        self._stamp.write_text(json.dumps(vars(stamp), indent=1))

    def make(self, version_wanted: str | None) -> None:
        """A virtual environment that works: the one that is there, or a new one."""
        if reason := self.unusable(version_wanted):
            print(f"  {self.folder.name} is made again: {reason}")
            shutil.rmtree(self.folder)
        if self.python.exists():
            self._stamp.unlink(missing_ok=True)
            return
        self.folder.mkdir(exist_ok=True)
        self._unfinished.touch()
        self._run("virtual environment", [sys.executable, "-I", "-m", "venv", str(self.folder)])
        self._unfinished.unlink()

    def unusable(self, version_wanted: str | None) -> str | None:
        """Why what is there must be made again; None when it can be used, or when nothing is there."""
        if not self.folder.exists():
            return None
        if self._unfinished.exists():
            return "an earlier set-up was cut off"
        stamp = self.stamp()
        if stamp and stamp.root != str(self.root):
            return f"it was made in {stamp.root}"
        version = self._ask("import sys; import pip; print('%d.%d' % sys.version_info[:2])")
        if not version:
            return "its Python or its pip does not start"
        if version_wanted and version != version_wanted:
            return f"it has Python {version}, PYTHON= is {version_wanted}"
        return None

    def version(self, package: str) -> str | None:
        """The installed version."""
        return self._ask(f"from importlib.metadata import version; print(version({package!r}))") or None

    def pip(self, title: str, *arguments: str, index: str | None = None) -> None:
        """Run `pip install`; SystemExit with its last lines and the way out when it fails."""
        environ = only_index(index, self._environ, self.pip_answer("config", "list")) if index else self._environ
        # A pip that is killed half-way may leave half a package that it later takes for a whole one.
        self._unfinished.touch()
        # Compiling all of torch and transformers costs 20 s; Python compiles what is used when it is used.
        command = [str(self.python), "-I", "-m", "pip", "install", "--no-compile", "--progress-bar=off", *arguments]
        self._run(title, command, environ)
        self._unfinished.unlink()

    def pip_answer(self, *arguments: str) -> str:
        """What pip prints; "" when it fails. Nothing is downloaded but lists."""
        command = [str(self.python), "-I", "-m", "pip", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environ, check=False)
        return done.stdout if done.returncode == 0 else ""

    def _ask(self, program: str) -> str:
        try:
            done = subprocess.run([str(self.python), "-I", "-c", program], capture_output=True, text=True, check=False)
        except OSError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    def _run(self, title: str, command: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        started = heard = time.monotonic()
        with self.log.open("a") as log:
            print(f"\n$ {' '.join(command)}", file=log, flush=True)
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.root, env=environ
            )
            while process.poll() is None:
                time.sleep(0.1)
                if time.monotonic() - heard > HEARTBEAT_S:
                    heard = time.monotonic()
                    print(f"    {heard - started:.0f} s: {self._last_words(1)[0].strip()[:100]}", flush=True)
        if process.returncode:
            # pip takes back what it began when it fails by itself: what is there is whole.
            self._unfinished.unlink(missing_ok=True)
            self._give_up(title)
        print(f"  {title:<44} {time.monotonic() - started:6.1f} s", flush=True)

    def _give_up(self, title: str) -> None:
        print(f"\nSet-up failed at: {title}. The last lines:\n")
        print("\n".join(f"    {line}" for line in self._last_words(LAST_LINES)))
        raise SystemExit(
            f"\nThe whole story is in {self.log}. pip's own settings apply here: behind a proxy or with a mirror, "
            "PIP_PROXY,\nPIP_CERT or PIP_INDEX_URL; for another source of torch, TORCH_INDEX=url. Then run the same "
            "command again:\nwhat is downloaded is kept."
        )

    def _last_words(self, count: int) -> list[str]:
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("WARNING: Location")][-count:]


def has_nvidia_gpu() -> bool:
    """Whether a driver is loaded that knows a GPU."""
    if any(Path("/proc/driver/nvidia/gpus").glob("*")):
        return True
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and "GPU" in answer.stdout


def install_torch(environment: Environment, version: str, index: str | None, index_changed: bool) -> None:
    """torch alone, without what it requires: that comes with the rest, from pip's own sources."""
    there = environment.version("torch")
    if there and there.split("+")[0] == version and not index_changed:
        return
    quick = ("--timeout", str(CPU_INDEX_PATIENCE_S), "--retries", "0")
    torch = choose_torch(
        index,
        platform.system(),
        has_nvidia_gpu(),
        lambda: offers_cpu_build(environment.pip_answer("index", "versions", "torch"), version),
        lambda: offers_cpu_build(
            environment.pip_answer("index", "versions", "torch", "--index-url", CPU_INDEX, *quick), version
        ),
    )
    print(f"  torch {version}: {torch.because}", flush=True)
    again = ["--force-reinstall"] if there else []
    environment.pip(f"torch {version}", "--no-deps", *again, f"torch=={version}", index=torch.index)


def set_up(root: Path, given_index: str | None, version_wanted: str | None) -> None:
    """Make the environment, or finish it."""
    started = time.monotonic()
    inputs = inputs_digest(root)
    environment = Environment(root)
    previous = environment.stamp()
    if previous and previous.current(inputs, root, given_index) and not environment.unusable(version_wanted):
        make_published_clients(environment)
        return
    print(f"Setting up {environment.folder} (Python {platform.python_version()})", flush=True)
    environment.make(version_wanted)
    constraints = root / "constraints.txt"
    pins = ("--constraint", str(constraints))
    environment.pip("build tools", *pins, "hatchling", "editables")
    remembered = previous.torch_index if previous else None
    torch_index = given_index or remembered
    install_torch(environment, pinned(constraints.read_text(), "torch"), torch_index, torch_index != remembered)
    environment.pip("tunesmith and the rest", *pins, "--no-build-isolation", "--editable", f"{root}[dev]")
    environment.finish(Stamp(inputs, str(root), torch_index))
    make_published_clients(environment)
    print(f"Set up in {time.monotonic() - started:.0f} s. Next: make demo, make test, make up")


def make_published_clients(environment: Environment) -> None:
    """The environments of the published clients, with which some tests speak to us; says itself what goes wrong."""
    subprocess.run(
        [str(environment.python), "-I", str(environment.root / "scripts" / "published_client.py")], check=False
    )


def has_published_clients(root: Path) -> bool:
    """Whether those environments are finished, or somebody brings them along."""
    return all(
        os.environ.get(variable) or (root / folder / "setup.json").exists()
        for variable, folder in PUBLISHED_CLIENTS.items()
    )


def main(arguments: list[str]) -> int:
    """`--fresh` only asks, with exit status 0 or 1, whether there is nothing to do."""
    given_index = os.environ.get("TORCH_INDEX") or None
    python_given = bool(os.environ.get("PYTHON"))
    if "--fresh" in arguments:
        stamp = Environment(ROOT).stamp()
        whole = not (ROOT / ".venv" / "unfinished").exists() and has_published_clients(ROOT)
        return not (stamp and whole and not python_given and stamp.current(inputs_digest(ROOT), ROOT, given_index))
    with Path(__file__).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another set-up is running here; waiting for it.", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        set_up(ROOT, given_index, "{}.{}".format(*sys.version_info[:2]) if python_given else None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
