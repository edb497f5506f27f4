"""Prepared runs trained in this process, or in one of their own that is forked where torch is imported already."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from pathlib import Path

import torch
from torch.nn import functional

from tunesmith.data.schedule import rows_of_step
from tunesmith.data.store import Rows
from tunesmith.handoff.events import Event, events_path, read_events
from tunesmith.handoff.plan import Plan
from tunesmith.handoff.prepared import Prepared
from tunesmith.train.batches import Layout
from tunesmith.train.crew import Crew
from tunesmith.train.job import Job
from tunesmith.train.recipes.sft import sft
from tunesmith.train.signals import Doorbell

CPU = torch.device("cpu")

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["tunesmith.train.__main__", "transformers.models.llama.modeling_llama"])
"""A cold `python -m tunesmith.train` spends 5 to 10 CPU-seconds on imports, and there are many processes to kill."""


def train(run: Path, listen=lambda event: None, crew: int = 2) -> list[Event]:
    """Run the recipe in this process with so many threads; returns its events."""
    events: list[Event] = []

    def log(event: Event) -> None:
        events.append(event)
        listen(event)

    sft(Job(run, Plan.read(run / "plan.json"), Prepared.read(run / "data.json"), CPU, log, Doorbell(), Crew(crew)))
    return events


def layout(tokens_per_pass: int, flat: bool = True, **more) -> Layout:
    """How rows are laid into passes, on the CPU."""
    return Layout(tokens_per_pass=tokens_per_pass, device=CPU, flat=flat, **more)


def by_hand(model, run: Path, step: int):
    """A step's mean loss, row by row through the model's own forward: full logits, no code of ours but the rows."""
    plan, prepared = Plan.read(run / "plan.json"), Prepared.read(run / "data.json")
    rows, summed, count = Rows(run, prepared.training), torch.zeros(()), 0
    for row in rows_of_step(step, len(rows), plan.schedule.rows_per_step, plan.schedule.seed):
        ids = torch.tensor(rows.ids(row).tolist())
        labels = torch.where(torch.tensor(rows.mask(row).tolist()) == 1, ids, -100)
        logits = model(ids[None], use_cache=False).logits[0, :-1]
        summed = summed + functional.cross_entropy(logits, labels[1:], reduction="sum", ignore_index=-100)
        count += int((labels[1:] != -100).sum())
    return summed / count


def losses(events: list[Event], kind: str = "progress") -> list[float]:
    return [event.loss for event in events if event.kind == kind]


def start(run: Path, attempt: int = 1, **environment: str):
    """A process of its own that does what `python -m tunesmith.train RUN` does, saving each step; `.join()` it."""
    settings = {"TUNESMITH_ATTEMPT": str(attempt), "TUNESMITH_CHECKPOINT_SECONDS": "0", "OMP_NUM_THREADS": "2"}
    process = _FORKED.Process(target=_main, args=(run, settings | environment))
    process.start()
    return process


def finish(run: Path, attempt: int = 1, **environment: str) -> int:
    """Start and wait for it: the exit status, or minus the signal that ended it."""
    process = start(run, attempt, **environment)
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def said(run: Path, attempt: int = 1) -> list[Event]:
    """All events of an attempt."""
    return read_events(events_path(run, attempt), 0)[0]


def _main(run: Path, environment: dict[str, str]) -> None:
    from tunesmith.train.__main__ import main

    os.environ.update(environment)
    if limit := environment.get("FILE_SIZE_LIMIT"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    sys.exit(main(run))
