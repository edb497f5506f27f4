"""All that `tunesmith jobs show` says of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.api.base import JsonObject
from tunesmith.api.jobs import Job, JobState, JobStatus
from tunesmith.cli import render
from tunesmith.cli.watch import clock, failure_of, numbers_of, pause_of, phase_of, queue_of


@dataclass(frozen=True)
class Card:
    """A job, and how it is doing."""

    job: Job
    state: JobState

    @property
    def details(self) -> JsonObject:
        """What it says of itself."""
        return self.state.status_details

    def model_dump(self, *, mode: str) -> Any:
        """Both as one object: the job with its steps."""
        return {**self.job.model_dump(mode=mode), **self.state.model_dump(mode=mode)}


def named(value: object) -> str | None:
    """A reference as a dialect has it: a word, or an object with the word in it."""
    if isinstance(value, dict):
        value = value.get("name") or value.get("path") or value.get("training")
    return None if value is None else str(value)


def _phase(card: Card) -> str | None:
    phase = phase_of(card.state)
    return phase if phase != card.state.status else None


def _attempt(card: Card) -> str | None:
    """Which attempt it is and where it began, unless it is the first from the first step."""
    attempt, step = card.details.get("attempt"), card.details.get("resumed_from_step")
    said = [str(attempt) if attempt else "", f"went on from the checkpoint of step {step}" if step else ""]
    return ", ".join(filter(None, said))


def _makes(card: Card) -> str | None:
    """What the job has made, or is going to make."""
    for kind in ("adapter", "model"):
        if made := card.details.get(kind):
            version = card.details.get("replaced_version")
            return f"{kind} {made}" + (f"; what it was before is version {version}" if version else "")
    return named(card.job.spec.get("output"))


def _weights(card: Card) -> str | None:
    step, why = card.details.get("exported_step"), card.details.get("exported_because")
    return None if step is None else f"of step {step}" + (f", {why}" if why else "")


def _samples(card: Card) -> str | None:
    """What the model last said to validation rows, under what the rows have there."""
    return "\n\n".join(
        f"{sample.get('prompt')}\n  wanted: {sample.get('wanted')}\n  said:   {sample.get('said')}"
        for sample in card.details.get("samples") or []
    )


def _risk(card: Card) -> str | None:
    """What a crash would cost now."""
    seconds, step = card.details.get("at_stake_seconds"), card.details.get("checkpoint_step")
    if seconds is None or card.state.status.final:
        return None
    return f"a crash costs up to {clock(seconds)} of work; the last checkpoint is of step {step}"


def _deployment(card: Card) -> str | None:
    """What serves the result, where the job asked for that."""
    if failed := card.details.get("deployment_error"):
        return f"none: {failed}"
    if found := card.details.get("deployment"):
        reused = card.details.get("deployment_reused")
        return f"{found}: {reused}" if reused else str(found)
    return "follows" if card.job.spec.get("deployment_config") and not card.state.status.final else None


def _next(card: Card) -> str | None:
    """The command that a user most likely wants now."""
    name, status = card.state.name, card.state.status
    if status is JobStatus.ERROR:
        return f"`tunesmith jobs logs {name}` shows what its processes wrote"
    if status is JobStatus.PAUSED:
        return f"`tunesmith jobs resume {name}` lets it go on"
    if not status.final:
        return f"`tunesmith jobs watch {name}` follows it"
    model, made = card.details.get("model"), card.details.get("adapter") or card.details.get("model")
    if status is not JobStatus.COMPLETED or not made:
        return None
    if card.details.get("deployment"):
        return f"`tunesmith chat {made}` talks to it"
    return f"`tunesmith deploy {model or named(card.job.spec.get('model'))}` serves it"


CARD: render.Columns[Card] = {
    "job": lambda card: f"{card.job.workspace}/{card.job.name}",
    "description": lambda card: card.job.description,
    "project": lambda card: card.job.project,
    "status": lambda card: card.state.status,
    "queue": lambda card: queue_of(card.state),
    "paused": lambda card: pause_of(card.state),
    "phase": _phase,
    "progress": lambda card: numbers_of(card.details),
    "attempt": _attempt,
    "risk": _risk,
    "error": lambda card: failure_of(card.state) if card.state.status is JobStatus.ERROR else None,
    "next": _next,
    "warnings": lambda card: "\n".join(map(str, card.details.get("warnings") or [])),
    "backend": lambda card: card.details.get("backend") or card.job.source,
    "model": lambda card: named(card.job.spec.get("model")),
    "dataset": lambda card: named(card.job.spec.get("dataset")),
    "makes": _makes,
    "weights": _weights,
    "samples": _samples,
    "deployment": _deployment,
    "priority": lambda card: (card.job.custom_fields or {}).get("priority"),
    "device": lambda card: card.details.get("device"),
    "steps": lambda card: "\n".join(f"{step.name}: {step.status}" for step in card.state.steps),
    "created": lambda card: card.state.created_at,
    "updated": lambda card: card.state.updated_at,
}
