"""Makes `.venv-nemo`: the published client with our distribution beside it, for the tests that speak through it.

`scripts/setup.py` runs it with `.venv`'s Python. uv installs it in seconds and 370 MB, where pip takes minutes to
resolve. TUNESMITH_NEMO_PYTHON names an interpreter that has the client already; then nothing is made.
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

PACKAGE = "nemo-platform==0.3.0"
LAST_LINES = 8
ROOT = Path(__file__).resolve().parent.parent


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


def make(root: Path, uv: Path, python: Path, environment: Mapping[str, str]) -> str | None:
    """Make the environment unless it is there; what went wrong, or None."""
    folder = root / ".venv-nemo"
    stamp, wanted = folder / "setup.json", {"package": PACKAGE, "root": str(root), "beside": "tunesmith"}
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    for step in (
        ["venv", "--python", str(python), str(folder)],
        ["pip", "install", "--python", str(folder / "bin" / "python"), PACKAGE],
        # It brings all that our client needs; our server and engines are not installed there.
        ["pip", "install", "--python", str(folder / "bin" / "python"), "--no-deps", "--editable", str(root)],
    ):
        done = subprocess.run([str(uv), "--quiet", *step], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return "\n".join(f"    {line}" for line in (done.stdout + done.stderr).splitlines()[-LAST_LINES:])
    stamp.write_text(json.dumps(wanted))
    print(f"  {PACKAGE + ', beside':<44} {time.monotonic() - started:6.1f} s", flush=True)
    return None


def main() -> int:
    """Always 0: what is missing is missing to some tests only, and they say so."""
    if os.environ.get("TUNESMITH_NEMO_PYTHON"):
        return 0
    python = Path(sys.executable)
    asked = [str(python), "-I", "-m", "pip", "config", "list"]
    settings = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    if wrong := make(ROOT, python.parent / "uv", python, uv_environment(os.environ, settings)):
        print(
            f"\n{PACKAGE} could not be installed into .venv-nemo; the last lines:\n\n{wrong}\n\n"
            "Only tests/compatibility needs it. With a network, run `make setup` again (uv has settings of its own: "
            "UV_DEFAULT_INDEX,\nSSL_CERT_FILE), or let TUNESMITH_NEMO_PYTHON name a Python that has the package.\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
