"""`python -m tunesmith.data RUN`: makes a run's rows ready for training, or says what is wrong with them."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from tunesmith.data.prepare import prepare
from tunesmith.data.rows import BadRows
from tunesmith.errors import TunesmithError
from tunesmith.handoff.events import EventLog, Failed, events_path
from tunesmith.handoff.plan import Plan

PLAN_FILE = "plan.json"


def main(run: Path) -> int:
    """Exit status: 0 after a `prepared` event, 1 after a `failed` one."""
    log = EventLog(events_path(run, int(os.environ.get("TUNESMITH_ATTEMPT", "1"))))
    try:
        prepare(run, Plan.read(run / PLAN_FILE), log)
    except TunesmithError as error:
        log(Failed(type=error.code, message=error.message, detail=error.detail if isinstance(error, BadRows) else ""))
        return 1
    except Exception as error:  # noqa: BLE001 - the edge of a process: whatever happens becomes an event
        log(Failed(type="InternalError", message=f"{type(error).__name__}: {error}", detail=traceback.format_exc()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
