"""`tunesmith` with the small trainer in torch's place, as a process of its own: for tests that kill the server."""

from __future__ import annotations

import os
from pathlib import Path

from tunesmith.cli.main import main
from tunesmith.control import runs
from tunesmith.store.jobs import Phase

if __name__ == "__main__":
    runs.MODULES[Phase.TRAINING] = "tests.small_train"
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    main()
