"""`python -m tunesmith.data RUN`: makes a run's rows ready for training, or says what is wrong with them.

`python -m tunesmith.data preview REQUEST.json`: prints the rows that are asked for as the trainer would see them.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from tunesmith.data.faults import BadRows
from tunesmith.errors import TunesmithError
from tunesmith.handoff.events import EventLog, Failed
from tunesmith.handoff.plan import PLAN_FILE, Plan

PREVIEW = "preview"


def main(run: Path) -> int:
    """Exit status: 0 after a `prepared` event, 1 after a `failed` one."""
    from tunesmith.data.prepare import prepare

    log = EventLog.of_this_attempt(run)
    try:
        prepare(run, Plan.read(run / PLAN_FILE), log)
    except TunesmithError as error:
        log(Failed(type=error.code, message=error.message, detail=error.detail if isinstance(error, BadRows) else ""))
        return 1
    except Exception as error:  # noqa: BLE001 - the edge of a process: whatever happens becomes an event
        log(Failed(type="InternalError", message=f"{type(error).__name__}: {error}", detail=traceback.format_exc()))
        return 1
    return 0


def preview(path: Path) -> int:
    """One line of JSON: the rows, or `{"refused": why}` with exit status 1."""
    from tunesmith.data.previews import TOO_MUCH, PreviewRequest, as_answer, as_refusal
    from tunesmith.data.show import limit_this_process, show

    try:
        request = PreviewRequest.read(path)
        limit_this_process(request.seconds)
        sys.stdout.write(as_answer(show(request)))
    except TunesmithError as error:
        sys.stdout.write(as_refusal(error.message))
        return 1
    except MemoryError:
        sys.stdout.write(as_refusal(f"memory ran out: {TOO_MUCH}"))
        return 1
    return 0


if __name__ == "__main__":
    wanted = sys.argv[1:]
    sys.exit(preview(Path(wanted[1])) if wanted[0] == PREVIEW else main(Path(wanted[0])))
