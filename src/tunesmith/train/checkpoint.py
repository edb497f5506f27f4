"""What a run needs to go on, and what it may export: one directory for each saved step, complete or not there.

    checkpoints/step-000049/
      weights.safetensors      all trained weights by name, float32
      optimizer.safetensors    the optimizer's running means, flat
      checkpoint.json          the numbers, whose they are, and the digests of the other files

No generator state: everything random is drawn from (seed, step, row). A directory is written under a temporary name,
checkpoint.json last, flushed to disk and renamed. The newest two are kept, and for both of them the best so far.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.errors import EngineError
from tunesmith.handoff.base import Handed, HandedFile
from tunesmith.handoff.crash import crash_at
from tunesmith.handoff.plan import PLAN_FILE, Plan
from tunesmith.handoff.prepared import PREPARED_FILE, Prepared
from tunesmith.train.disk import SPARE_BYTES, sha256_of, told_of_disk, written
from tunesmith.train.optim import SCALE_START

CHECKPOINTS = "checkpoints"
WEIGHTS_FILE, OPTIMIZER_FILE, CHECKPOINT_FILE = "weights.safetensors", "optimizer.safetensors", "checkpoint.json"


class State(Handed):
    """Where a run stands after a step; at step 0 before the first."""

    step: int = 0
    tokens: int = 0
    """Real tokens learned from so far."""
    seconds: float = 0.0
    """Time spent training so far."""
    validated_step: int = 0
    """The last step that a validation was completed after."""
    best_step: int = 0
    """The step with the lowest validation loss so far; 0 = none was measured."""
    best_loss: float | None = None
    """Its loss; None when none was measured."""
    loss_scale: float = SCALE_START
    """What an fp16 loss is multiplied by in the next step."""
    good_steps: int = 0
    """Steps since it last changed."""
    unsaid: tuple[float, int] = (0.0, 0)
    """Sum of losses and count of trained tokens of the steps since the last `progress` event."""


class Checkpoint(HandedFile):
    """`checkpoint.json`."""

    plan: str
    """Digest of the plan, but for its trackers."""
    rows: str
    """Digest of what data.json says."""
    state: State
    files: dict[str, str]
    """Each other file of the directory: name -> sha256 in hex."""


class Damaged(Exception):
    """A checkpoint is not what was written; the message says where."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run: Path, plan: Plan, prepared: Prepared) -> None:
        self._run = run
        self._plan, self._rows = digest_of(plan, {"trackers"}), digest_of(prepared)
        self._good: list[State] = []
        """Of the checkpoints that this process has read or written, oldest first."""
        self._taken_up = 0
        """Whose files were all read, which for large models takes seconds, and found whole; 0 = none's."""

    def take_up(self, warn: Callable[[str], None]) -> State:
        """Where the newest complete checkpoint stands, a fresh State if there is none; damaged ones are passed over.

        EngineError (CheckpointError) if it is another plan's.
        """
        for unfinished in (self._run / CHECKPOINTS).glob(".step-*"):
            shutil.rmtree(unfinished)
        for directory in reversed(checkpoint_directories(self._run)):
            try:
                found = verified(directory)
            except Damaged as why:
                warn(f"{why}; it is passed over, the run goes on from an earlier one or from its start")
                continue
            self._refuse_foreign(directory, found)
            self._good, self._taken_up = [found.state], found.state.step
            return found.state
        return State()

    def holds(self, step: int) -> bool:
        """Is `step` the newest one on disk?"""
        return bool(self._good) and self._good[-1].step == step

    def weights(self, step: int) -> dict[str, Tensor]:
        """The weights of a step; Damaged if they are gone or not what was written."""
        directory = step_directory(self._run, step)
        if step != self._taken_up:
            verified(directory, [WEIGHTS_FILE])
        return load_file(directory / WEIGHTS_FILE)

    def optimizer(self, step: int) -> dict[str, Tensor]:
        """The optimizer's state at the step that was taken up."""
        return load_file(step_directory(self._run, step) / OPTIMIZER_FILE)

    def save(self, state: State, weights: Mapping[str, Tensor], optimizer: dict[str, Tensor]) -> Path:
        """Write the checkpoint of `state.step`, then drop what is no longer needed; returns its directory.

        EngineError (CheckpointError) if the disk does not take it; the earlier ones stay.
        """
        final = step_directory(self._run, state.step)
        with written(final, sum(tensor.nbytes for tensor in (*weights.values(), *optimizer.values()))) as directory:
            save_file({name: tensor.cpu() for name, tensor in weights.items()}, directory / WEIGHTS_FILE)
            save_file(optimizer, directory / OPTIMIZER_FILE)
            crash_at("checkpoint-half-written")
            files = {path.name: sha256_of(path) for path in directory.iterdir()}
            said = Checkpoint(plan=self._plan, rows=self._rows, state=state, files=files)
            said.write(directory / CHECKPOINT_FILE)
        self._good = [*self._good[-1:], state]
        self._drop_old()
        return final

    def note(self, state: State) -> None:
        """Say more about the newest checkpoint: its step was validated meanwhile."""
        path = step_directory(self._run, state.step) / CHECKPOINT_FILE
        with told_of_disk(path, SPARE_BYTES):
            Checkpoint.read(path).model_copy(update={"state": state}).write(path)
        self._good[-1] = state

    def _refuse_foreign(self, directory: Path, found: Checkpoint) -> None:
        for what, theirs, ours in ((PLAN_FILE, found.plan, self._plan), (PREPARED_FILE, found.rows, self._rows)):
            if theirs != ours:
                raise EngineError(
                    f"{directory} belongs to another {what} (digest {theirs[:12]}) than the run has now ({ours[:12]}): "
                    f"restore {what}, or delete {directory.parent} to start anew",
                    "CheckpointError",
                )

    def _drop_old(self) -> None:
        kept = {step for state in self._good for step in (state.step, state.best_step)}
        for directory in checkpoint_directories(self._run):
            if _step_of(directory) not in kept:
                shutil.rmtree(directory)


def step_directory(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / CHECKPOINTS / f"step-{step:06d}"


def checkpoint_directories(run: Path) -> list[Path]:
    """All that were given their name, oldest first."""
    return sorted((run / CHECKPOINTS).glob("step-*"), key=_step_of)


def verified(directory: Path, names: Collection[str] = (WEIGHTS_FILE, OPTIMIZER_FILE)) -> Checkpoint:
    """What `directory` holds; Damaged says which of the named files is missing or changed."""
    try:
        found = Checkpoint.read(directory / CHECKPOINT_FILE)
        for name in names:
            if sha256_of(directory / name) != found.files.get(name):
                raise Damaged(f"{directory / name} is damaged: its digest is not the one that was recorded")
    except (EngineError, OSError) as error:
        raise Damaged(f"{directory} is damaged: {error}") from None
    return found


def digest_of(value: HandedFile, leave_out: Collection[str] = ()) -> str:
    """sha256 of the value. Fields at their defaults do not count, so a new one does not change what was written."""
    plain = value.model_dump(mode="json", exclude=set(leave_out), exclude_defaults=True)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _step_of(directory: Path) -> int:
    return int(directory.name.removeprefix("step-"))
