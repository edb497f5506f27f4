"""Makes `.venv-nemo` and `.venv-nemo-microservices`: the published clients, for the tests that speak through them.

`scripts/setup.py` runs it with `.venv`'s Python. uv installs them in seconds, 370 and 18 MB, where pip takes minutes to
resolve the first. TUNESMITH_NEMO_PYTHON and TUNESMITH_NEMO_MICROSERVICES_PYTHON name interpreters that have them
already; then nothing is made.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

LAST_LINES = 8
ROOT = Path(__file__).resolve().parent.parent


class Client(NamedTuple):
    """A published client in an environment of its own."""

    package: str
    folder: str
    variable: str
    """Names an interpreter that has it already."""
    ours_beside: bool
    """Whether our distribution is installed there too: the client finds it by its entry point."""


PLATFORM = Client("nemo-platform==0.3.0", ".venv-nemo", "TUNESMITH_NEMO_PYTHON", ours_beside=True)
MICROSERVICES = Client(
    "nemo-microservices==1.5.0", ".venv-nemo-microservices", "TUNESMITH_NEMO_MICROSERVICES_PYTHON", ours_beside=False
)
CLIENTS = (PLATFORM, MICROSERVICES)


def uv_environment(environment: Mapping[str, str], pip_settings: str) -> dict[str, str]:
    """uv does not read pip's settings; where it has none of its own it is told index, proxy and certificates.

    `pip_settings` is the answer of `pip config list`.
    """
    told = dict(environment)
    for key, names in {
        "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
        "cert": ("SSL_CERT_FILE",),
        "proxy": ("ALL_PROXY", "HTTPS_PROXY", "https_proxy"),
    }.items():
        found = re.search(rf"^(?::env:|global|install)\.{key}='(.*)'$", pip_settings, re.MULTILINE)
        if found and not any(name in environment for name in names):
            told[names[0]] = found.group(1)
    return told


def make(root: Path, uv: Path, python: Path, environment: Mapping[str, str], client: Client = PLATFORM) -> str | None:
    """Make the client's environment unless it is there; what went wrong, or None."""
    folder = root / client.folder
    stamp = folder / "setup.json"
    wanted = {"package": client.package, "root": str(root), "beside": "tunesmith" if client.ours_beside else ""}
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    install = ["pip", "install", "--python", str(folder / "bin" / "python")]
    steps = [["venv", "--python", str(python), str(folder)], [*install, client.package]]
    if client.ours_beside:  # the client brings all that ours needs; our server and engines are not installed there
        steps.append([*install, "--no-deps", "--editable", str(root)])
    for step in steps:
        done = subprocess.run([str(uv), "--quiet", *step], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return "\n".join(f"    {line}" for line in (done.stdout + done.stderr).splitlines()[-LAST_LINES:])
    stamp.write_text(json.dumps(wanted))
    print(f"  {client.package + ', beside':<44} {time.monotonic() - started:6.1f} s", flush=True)
    return None


def main() -> int:
    """Always 0: what is missing is missing to some tests only, and they say so."""
    python = Path(sys.executable)
    asked = [str(python), "-I", "-m", "pip", "config", "list"]
    wanted = [client for client in CLIENTS if not os.environ.get(client.variable)]
    settings = subprocess.run(asked, capture_output=True, text=True, check=False).stdout if wanted else ""
    for client in wanted:
        if wrong := make(ROOT, python.parent / "uv", python, uv_environment(os.environ, settings), client):
            print(
                f"\n{client.package} could not be installed into {client.folder}; the last lines:\n\n{wrong}\n\n"
                "Only tests/compatibility needs it. With a network, run `make setup` again (uv has settings of its "
                f"own: UV_DEFAULT_INDEX,\nSSL_CERT_FILE), or let {client.variable} name a Python that has the "
                "package.\n"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
