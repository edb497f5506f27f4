"""Writes the synchronous client from the asynchronous one: `client/aio/*.py` by hand, `client/sync/*.py` by this.

`python scripts/unasync.py` writes, `python scripts/unasync.py --check` compares and exits with 1 where they differ.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# This file bears the library's name: look for the library elsewhere than beside it.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]

from unasync import Rule, unasync_files  # noqa: E402

ROOT = HERE.parent
AIO = ROOT / "src" / "tunesmith" / "client" / "aio"
SYNC = AIO.with_name("sync")
NOTE = "# Made by scripts/unasync.py from ../aio/{name}: change that file and run the script again.\n"

WORDS = {
    "aio": "sync",
    "aclose": "close",
    "aread": "read",
    "aiter_raw": "iter_raw",
    "aiter_bytes": "iter_bytes",
    "async_drawn": "drawn",
    "async_each": "each",
    "async_sleep": "sleep",
}
"""Besides `async`, `await` and `AsyncName`, what is said differently."""


def main() -> None:
    """Write, or compare when asked to."""
    made = generate()
    if "--check" not in sys.argv[1:]:
        SYNC.mkdir(exist_ok=True)
        for name, text in made.items():
            (SYNC / name).write_text(text)
        for stale in differing(made):
            (SYNC / stale).unlink()
        return
    if wrong := differing(made):
        names = ", ".join(f"client/sync/{name}" for name in wrong)
        sys.exit(f"not what client/aio says: {names}\nrun `python scripts/unasync.py` and keep what it writes")


def generate() -> dict[str, str]:
    """The text of each file of the synchronous client."""
    sources = sorted(AIO.glob("*.py"))
    names = {name for source in sources for name in re.findall(r"\bAsync[A-Z]\w*", source.read_text())}
    words = WORDS | {name: name.removeprefix("Async") for name in names}
    # ruff finds its settings upwards from the file, so the scratch directory is inside the repository.
    with tempfile.TemporaryDirectory(prefix=".sync-", dir=SYNC.parent) as scratch:
        unasync_files([str(source) for source in sources], [Rule(str(AIO), scratch, words)])
        for source in sources:
            text = (Path(scratch) / source.name).read_text()
            (Path(scratch) / source.name).write_text(NOTE.format(name=source.name) + text if text else "")
        ruff("check", "--quiet", "--fix", "--select", "I,RUF100,UP028", "--unsafe-fixes", scratch)
        ruff("format", "--quiet", scratch)
        return {source.name: (Path(scratch) / source.name).read_text() for source in sources}


def ruff(*arguments: str) -> None:
    """Tidy as the rest of the code."""
    subprocess.run([sys.executable, "-m", "ruff", *arguments], check=True, cwd=ROOT)


def differing(made: dict[str, str]) -> list[str]:
    """Files of the synchronous client that are missing, changed or superfluous."""
    there = {path.name: path.read_text() for path in SYNC.glob("*.py")}
    return sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))


if __name__ == "__main__":
    main()
