"""What the processes of any run import, for the process that jobs are forked from (`control/launch/forker.py`).

Importing this takes 3 to 5 CPU-seconds and 350 MB, most of which all forks share. It must start no thread.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import transformers

import tunesmith.data.__main__
import tunesmith.data.prepare
import tunesmith.train.__main__  # noqa: F401 - that is the purpose
from tunesmith.handoff.inputs import MODEL


def ready(run: Path) -> None:
    """Import the class of a run's model too: the next job of its family finds it here.

    What is wrong with its checkpoint is for the job itself to say.
    """
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError):
        name = json.loads((run / MODEL / "config.json").read_bytes())["architectures"][0]
        getattr(transformers, name)
