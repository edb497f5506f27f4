"""What an engine says while it works: one JSON object a line, appended to `events.<attempt>.jsonl`.

Only rank 0 speaks. The supervisor reads whole lines past the offset it has stored; a line without its newline is not
there yet. prepare writes `prepared` (or `failed`); train writes the rest and ends with `finished`, `stopped` or
`failed`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter

from tunesmith.handoff.base import Compute, Handed, Stored


class Spoken(Handed):
    """What all events have."""

    at: float = Field(default_factory=time.time)
    """Seconds since 1970."""


class Preparing(Spoken):
    """prepare has begun, or has read so many more rows."""

    kind: Literal["preparing"] = "preparing"
    rows: int
    """Rows tokenised so far."""


class PreparedRows(Spoken):
    """The rows are on disk and counted."""

    kind: Literal["prepared"] = "prepared"
    training_rows: int
    validation_rows: int
    training_tokens: int
    trained_tokens: int
    truncated_rows: int
    dropped_rows: int
    steps: int
    steps_per_epoch: int
    packs: int = 0
    """Sequences that the training rows were put into; 0 without packing."""
    packs_per_step: int = 0


class Started(Spoken):
    """The model is in memory and the first step is next; all numbers are resolved."""

    kind: Literal["started"] = "started"
    steps: int
    epochs: int
    device: str
    compute: Compute
    threads: int
    trained_parameters: int
    adapted_modules: int
    """0 where all weights are trained."""
    stored_as: Stored = "float32"
    """Type of the weights in the artifact."""
    from_step: int = 0
    """The step whose checkpoint this attempt goes on from; 0 = from the start."""
    request_id: str = ""
    """Of the request that submitted the job; "" when nobody knows."""


class Progress(Spoken):
    """An optimizer step is done."""

    kind: Literal["progress"] = "progress"
    step: int
    epoch: int
    """1-based."""
    loss: float
    """Mean loss of the trained tokens since the last such event, in nats."""
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    tokens: int
    """Real (unpadded) tokens since the start of the run, those before a checkpoint included."""
    seconds: float
    """Spent training since the start of the run, those before a checkpoint included."""
    padding: float = 0.0
    """Part of the tokens that went through the model and stand for nothing, since the last such event."""
    peak_memory: int = 0
    """Most bytes that the process has held so far: on the GPU where it computes there, else resident."""
    utilisation: float | None = None
    """Floating-point operations that the method needs (none of those that are done twice), as a part of what the
    device's matrix products reach; None where that is not known."""


class Busy(Spoken):
    """Something takes long and goes on; said every few minutes of it, so that nobody takes the process for hung."""

    kind: Literal["busy"] = "busy"
    step: int
    doing: Literal["step", "validation"]
    """That step, or the validation behind it."""


class Sample(Handed):
    """What the model says to a validation row's prompt."""

    prompt: str
    said: str
    wanted: str
    """What the row has there."""


class Sampled(Spoken):
    """The model was asked a few prompts beside a validation."""

    kind: Literal["sampled"] = "sampled"
    step: int
    samples: tuple[Sample, ...]


class Validated(Spoken):
    """A validation pass is done."""

    kind: Literal["validated"] = "validated"
    step: int
    epoch: int
    loss: float


class CheckpointSaved(Spoken):
    """A complete checkpoint is on disk."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    epoch: int
    path: str
    size: int = 0
    """Bytes; 0 where nobody knows."""
    at_stake: float = 0.0
    """Seconds of work that a death of the process may cost from here on; 0 where nobody knows."""


class Warned(Spoken):
    """Something the user should know and nobody has to act on."""

    kind: Literal["warning"] = "warning"
    message: str


ARTIFACT = "artifact"
"""The directory of a run that its result lies in."""


class ArtifactFile(Handed):
    """A file of the artifact, complete and never written again."""

    path: str
    """Relative to `artifact/`."""
    digest: str
    """sha256 of the bytes, lower-case hex."""
    size: int


Reason = Literal["lowest_validation_loss", "last"]
"""Why the weights of a step are exported."""


class Finished(Spoken):
    """The artifact is complete in `artifact/`."""

    kind: Literal["finished"] = "finished"
    step: int
    exported_step: int
    """The step whose weights were exported."""
    reason: Reason
    files: tuple[ArtifactFile, ...]


class Stopped(Spoken):
    """The run ended at a step boundary because its `wish.json` said so."""

    kind: Literal["stopped"] = "stopped"
    step: int
    """The last step done. After a pause the run goes on behind it; at 0 it starts anew and there is no checkpoint."""
    wish: Literal["cancel", "pause"]


LESS_MEMORY = (
    "Less is needed with a smaller batch.micro_batch_size, training.max_seq_length or training.lora.rank (unsloth: "
    "batch.per_device_train_batch_size, model.max_seq_length, training.lora.rank)"
)
"""The way out for a run that memory ran out for."""


class Failed(Spoken):
    """The run cannot go on; the process exits with 1 after this line."""

    kind: Literal["failed"] = "failed"
    type: str
    """One of the error types of the wire, such as DatasetFormatError."""
    message: str
    detail: str
    """The longer story: more bad rows, or a traceback. May be empty."""


Event = Annotated[
    Preparing
    | PreparedRows
    | Started
    | Progress
    | Busy
    | Validated
    | Sampled
    | CheckpointSaved
    | Warned
    | Finished
    | Stopped
    | Failed,
    Field(discriminator="kind"),
]

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


ATTEMPT = "TUNESMITH_ATTEMPT"
"""The variable that tells an engine which attempt it is; the first, where nobody says."""


def events_path(run: Path, attempt: int) -> Path:
    """Where attempt `attempt` (1-based) of a run speaks."""
    return run / f"events.{attempt}.jsonl"


class EventLog:
    """Appends events to a file, a whole line at a time, whichever thread speaks."""

    def __init__(self, path: Path) -> None:
        """Cuts off half a line that a killed process left; no reader has taken it."""
        self._file, self._turn = path.open("a+b", buffering=0), threading.Lock()
        said = self._file.seek(0, os.SEEK_END)
        if said and os.pread(self._file.fileno(), 1, said - 1) != b"\n":
            self._file.truncate(path.read_bytes().rfind(b"\n") + 1)

    @classmethod
    def of_this_attempt(cls, run: Path) -> Self:
        """Where this process speaks."""
        return cls(events_path(run, int(os.environ.get(ATTEMPT, "1"))))

    def __call__(self, event: Event) -> None:
        """Write one line or nothing. Flushed to the kernel at once; to disk for everything but progress."""
        line = (json.dumps(event.model_dump(mode="json"), separators=(",", ":"), allow_nan=True) + "\n").encode()
        with self._turn:
            said = os.fstat(self._file.fileno()).st_size
            try:
                while line:
                    line = line[self._file.write(line) :]  # a disk that gets full takes a part
            except OSError:
                self._file.truncate(said)
                raise
            if not isinstance(event, Progress | Preparing):
                os.fsync(self._file.fileno())


def read_events(path: Path, offset: int, limit: int = 1 << 20) -> tuple[list[Event], int]:
    """The whole lines between `offset` and the end (at most `limit` bytes), and the offset behind the last of them.

    A missing file has no lines yet. A line that is not a lawful event raises pydantic.ValidationError.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            chunk = file.read(limit)
    except FileNotFoundError:
        return [], offset
    whole = chunk[: chunk.rfind(b"\n") + 1]
    if not whole and len(chunk) == limit:
        return read_events(path, offset, limit * 2)
    return [_EVENT.validate_json(line) for line in whole.splitlines()], offset + len(whole)


def as_json(event: Event) -> dict[str, Any]:
    """The event as plain data, for logs and tests."""
    return event.model_dump(mode="json")
