"""`python -m tunesmith.train RUN`: trains a prepared run; the whole story goes to `events.<attempt>.jsonl`."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads; see `_threads`

import torch

from tunesmith.errors import TunesmithError
from tunesmith.handoff.events import LESS_MEMORY, EventLog, Failed, Warned
from tunesmith.handoff.plan import PLAN_FILE, Plan
from tunesmith.handoff.prepared import PREPARED_FILE, Prepared
from tunesmith.model.load import pick_device, resolve_compute
from tunesmith.train.crew import Crew
from tunesmith.train.job import Job
from tunesmith.train.recipes.sft import sft
from tunesmith.train.rehearsal import is_want_of_memory
from tunesmith.train.signals import Doorbell, ToldToEnd, end_by_sigterm
from tunesmith.train.trackers import Following, trackers_of

RECIPES = {"sft": sft}
"""Plan.method -> the function that runs it."""


def main(run: Path) -> int:
    """Exit status: 0 after a `finished` or `stopped` event, 1 after a `failed` one.

    A SIGTERM that no wish explains ends it by that signal, after a checkpoint: to be started again.
    """
    doorbell = Doorbell()
    doorbell.listen()
    log = Following(EventLog.of_this_attempt(run))
    try:
        status = _train(run, log, doorbell)
    except ToldToEnd:
        log.close()
        end_by_sigterm()
    if not log.close():
        os._exit(status)  # a tracker's library would go on waiting for its server
    return status


def _train(run: Path, log: Following, doorbell: Doorbell) -> int:
    try:
        plan, prepared = Plan.read(run / PLAN_FILE), Prepared.read(run / PREPARED_FILE)
        log.bring(trackers_of(plan, run))
        torch.set_num_threads(_threads())
        device = pick_device()
        for message in _cautions(plan, prepared, device):
            log(Warned(message=message))
        crew = Crew(torch.get_num_threads() if device.type == "cpu" else 1)
        RECIPES[plan.method](Job(run, plan, prepared, device, log, doorbell, crew))
        crew.close()
    except ToldToEnd:
        raise
    except TunesmithError as error:
        log(Failed(type=error.code, message=error.message, detail=""))
        return 1
    except Exception as error:  # noqa: BLE001 - the edge of a process: whatever happens becomes an event
        kind, message = "GenericTrainingError", f"{type(error).__name__}: {error}"
        if is_want_of_memory(error):
            on_gpu = isinstance(error, torch.OutOfMemoryError) or "CUDA" in message or "CUBLAS" in message
            kind = "CudaError" if on_gpu else "TrainingEnvironmentError"
            message = f"memory ran out: {message}. {LESS_MEMORY}"
        log(Failed(type=kind, message=message, detail=traceback.format_exc()))
        return 1
    return 0


def _threads() -> int:
    """OMP_NUM_THREADS as the launcher set it, else what torch counts: the physical cores.

    They sleep between two pieces of work instead of spinning (OMP_WAIT_POLICY above): with three jobs of two threads on
    two cores, spinning ran 22 tokens/s, sleeping 189.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else torch.get_num_threads()


def _cautions(plan: Plan, prepared: Prepared, device: torch.device) -> list[str]:
    """What the user should know about rows and device before training."""
    limit, cautions = plan.data.sequence_limit, []
    if device.type == "cpu" and plan.model.compute in ("bf16", "fp16") and resolve_compute("auto", device) == "fp32":
        cautions.append(
            f"this processor has no {plan.model.compute} products and emulates them, several times slower than fp32; "
            "automodel computes in fp32 here (training.precision null)"
        )
    if prepared.truncated_rows:
        cautions.append(f"{prepared.truncated_rows} rows were cut to {limit} tokens; raise max_seq_length to keep them")
    if prepared.dropped_rows:
        cautions.append(f"{prepared.dropped_rows} rows were dropped: nothing to train on within {limit} tokens")
    return cautions


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
