"""What an event of an engine means for a job's status details. Contract 9.9."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.handoff.events import (
    CheckpointSaved,
    Event,
    Failed,
    Finished,
    PreparedRows,
    Preparing,
    Progress,
    Started,
    Stopped,
    Validated,
    Warned,
)
from tunesmith.store.metrics import Point, finite


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
                **({"resumed_from_step": event.from_step} if event.from_step else {}),
            }
        case Progress():
            return _progress(event, int(known.get("max_steps") or event.step))
        case Validated():
            return {"val_loss": finite(event.loss), "val_step": event.step}
        case CheckpointSaved():
            return {"checkpoint_path": event.path, "checkpoint_step": event.step}
        case Warned():
            return {"warnings": [*known.get("warnings", []), event.message]}
        case Finished():
            return {"phase": "registering", "exported_step": event.exported_step, "exported_because": event.reason}
        case Stopped():
            return {"phase": "stopped", "step": event.step}
        case Failed():
            return {}


def points(event: Event) -> list[Point]:
    """What an event adds to the job's series."""
    match event:
        case Progress():
            return [("train_loss", event.step, event.epoch, event.loss)]
        case Validated():
            return [("val_loss", event.step, event.epoch, event.loss)]
        case _:
            return []


def _progress(event: Progress, max_steps: int) -> dict[str, Any]:
    speed = event.tokens / event.seconds if event.seconds > 0 else 0.0
    return {
        "phase": "training",
        "step": event.step,
        "epoch": event.epoch,
        "train_loss": finite(event.loss),
        "loss": finite(event.loss),
        "lr": event.learning_rate,
        "grad_norm": finite(event.grad_norm),
        "percentage_done": 100 * event.step // max(1, max_steps),
        "tokens_per_second": round(speed, 1),
        "eta_seconds": round(event.seconds / event.step * (max_steps - event.step), 1),
    }
