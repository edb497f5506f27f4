"""What an event of an engine means for a job's status details. Contract 9.9."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.handoff.events import (
    Busy,
    CheckpointSaved,
    Event,
    Failed,
    Finished,
    PreparedRows,
    Preparing,
    Progress,
    Sample,
    Sampled,
    Started,
    Stopped,
    Validated,
    Warned,
)
from tunesmith.store.metrics import Point, finite

SHOWN_CHARACTERS = 500
"""Of a sample's prompt its end, of an answer its start: a status is asked for often."""


def details(event: Event, known: Mapping[str, Any]) -> dict[str, Any]:
    """What an event changes, given what is `known` so far."""
    match event:
        case Preparing():
            return {"rows_read": event.rows}
        case PreparedRows():
            return {
                "training_rows": event.training_rows,
                "validation_rows": event.validation_rows,
                "training_tokens": event.training_tokens,
                "trained_tokens": event.trained_tokens,
                "truncated_rows": event.truncated_rows,
                "dropped_rows": event.dropped_rows,
                "max_steps": event.steps,
                "steps_per_epoch": event.steps_per_epoch,
                **({"packs": event.packs, "packs_per_step": event.packs_per_step} if event.packs else {}),
                "step": 0,
            }
        case Started():
            return {
                "phase": "training",
                "step": event.from_step,
                "max_steps": event.steps,
                "num_epochs": event.epochs,
                "compute": event.compute,
                "device_type": event.device,
                "threads": event.threads,
                "trained_parameters": event.trained_parameters,
                "adapted_modules": event.adapted_modules,
                "stored_as": event.stored_as,
                **({"resumed_from_step": event.from_step} if event.from_step else {}),
            }
        case Progress():
            return _progress(event, int(known.get("max_steps") or event.step))
        case Validated():
            return {"val_loss": finite(event.loss), "val_step": event.step}
        case Sampled():
            return {"samples": [_sample(sample) for sample in event.samples], "samples_step": event.step}
        case CheckpointSaved():
            return {
                "checkpoint_path": event.path,
                "checkpoint_step": event.step,
                **({"checkpoint_bytes": event.size} if event.size else {}),
                **({"at_stake_seconds": round(event.at_stake, 1)} if event.at_stake else {}),
            }
        case Warned():
            told = known.get("warnings", [])  # by an earlier attempt, too, which says the same of the same rows
            return {} if event.message in told else {"warnings": [*told, event.message]}
        case Finished():
            return {"phase": "registering", "exported_step": event.exported_step, "exported_because": event.reason}
        case Stopped():
            return {"phase": "stopped", "step": event.step}
        case Busy() | Failed():
            return {}


def points(event: Event) -> list[Point]:
    """What an event adds to the job's series."""
    match event:
        case Progress():
            values = {"train_loss": event.loss, "lr": event.learning_rate, "grad_norm": event.grad_norm}
            values |= {"tokens_per_second": _speed(event)} if event.seconds > 0 else {}
            return [(series, event.step, event.epoch, value) for series, value in values.items()]
        case Validated():
            return [("val_loss", event.step, event.epoch, event.loss)]
        case _:
            return []


def _progress(event: Progress, max_steps: int) -> dict[str, Any]:
    known = {"peak_memory_bytes": event.peak_memory or None, "utilisation": event.utilisation}
    return {
        "phase": "training",
        "step": event.step,
        "epoch": event.epoch,
        "train_loss": finite(event.loss),
        "loss": finite(event.loss),
        "lr": event.learning_rate,
        "grad_norm": finite(event.grad_norm),
        "percentage_done": 100 * event.step // max(1, max_steps),
        "tokens": event.tokens,
        "tokens_per_second": _speed(event),
        "eta_seconds": round(event.seconds / event.step * (max_steps - event.step), 1),
        "padding": round(event.padding, 4),
        **{name: value for name, value in known.items() if value is not None},
    }


def _speed(event: Progress) -> float:
    """Real tokens a second since the start of the run."""
    return round(event.tokens / event.seconds, 1) if event.seconds > 0 else 0.0


def _sample(sample: Sample) -> dict[str, str]:
    prompt = sample.prompt
    if len(prompt) > SHOWN_CHARACTERS:
        prompt = "…" + prompt[-SHOWN_CHARACTERS:]
    return {"prompt": prompt, "said": _start(sample.said), "wanted": _start(sample.wanted)}


def _start(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
