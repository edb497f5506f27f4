"""The wheel, installed from the package index into fresh environments: the client alone, then the platform."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.live import eventually

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def run(*command: object, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **more)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run(BIN / "python", "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.glob("*.tar.gz"))
    return next(folder.glob("*.whl"))


def installed(folder: Path, wheel: Path, extra: str = "") -> Path:
    """The `bin` of a new environment with the wheel in it."""
    for command in (
        ("venv", "--python", BIN / "python", folder),
        ("pip", "install", "--python", folder / "bin" / "python", "-c", ROOT / "constraints.txt", f"{wheel}{extra}"),
    ):
        done = run(BIN / "uv", "--quiet", *command)
        assert done.returncode == 0, done.stderr
    return folder / "bin"


def test_the_base_install_is_a_client_that_says_what_a_platform_needs(tmp_path: Path, wheel: Path) -> None:
    commands = installed(tmp_path / "client", wheel)
    assert re.fullmatch(r"tunesmith \d+\.\d+\.\d+\n", run(commands / "tunesmith", "--version").stdout)
    assert (
        run(commands / "python", "-c", "import tunesmith; tunesmith.Tunesmith, tunesmith.AsyncTunesmith").returncode
        == 0
    )
    up = run(commands / "tunesmith", "up")
    assert up.returncode == 1
    assert "pip install 'tunesmith[all]'" in up.stdout + up.stderr


def test_the_platform_comes_up_from_the_wheel(tmp_path: Path, wheel: Path) -> None:
    commands = installed(tmp_path / "server", wheel, "[server]")
    said = tmp_path / "said"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    with said.open("w") as file:
        command = [str(commands / "tunesmith"), "up", "--port", "0", "--data-dir", str(tmp_path / "data")]
        server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path)
    try:
        found = eventually(
            lambda: re.search(r"listens on (\S+)", said.read_text()), f"it to listen; {said.read_text()}"
        )
        url = found.group(1)
        assert httpx.get(f"{url}/health/ready").json() == {"status": "ready"}
        listed = run(commands / "tunesmith", "--base-url", url, "models", "list", env=environment)
        assert listed.returncode == 0, listed.stderr
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    assert server.returncode in (0, -signal.SIGTERM)
