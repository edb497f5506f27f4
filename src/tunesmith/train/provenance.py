"""What a result was made from: `provenance.json` for machines, `README.md` for people."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tunesmith.handoff.base import Compute, Handed, HandedFile, Stored
from tunesmith.handoff.events import Reason
from tunesmith.handoff.inputs import INPUTS, INPUTS_FILE, Inputs, digest_of
from tunesmith.handoff.plan import LoraPart, Plan
from tunesmith.handoff.prepared import Prepared
from tunesmith.train.checkpoint import State
from tunesmith.train.disk import sha256_of
from tunesmith.train.job import Job

PROVENANCE_FILE, MODEL_CARD = "provenance.json", "README.md"

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "peft")
"""Whose version may change a number."""


class Fileset(Handed):
    """What lay below `inputs/`."""

    digest: str
    """As `handoff.inputs.digest_of` makes it."""
    files: dict[str, str]
    """Path -> sha256 of the bytes in hex."""


class RowCounts(Handed):
    """The rows, after truncation."""

    training: int
    validation: int
    training_tokens: int
    trained_tokens: int
    truncated: int
    dropped: int


class Provenance(HandedFile):
    """Everything that is needed to make the same artifact again, on the same kind of machine."""

    base_model: str
    inputs: dict[str, Fileset]
    """model, data, and validation where there was one."""
    plan: Plan
    rows: RowCounts
    steps: int
    """Optimizer steps of the whole run."""
    exported_step: int
    exported_because: Reason
    validation_loss: float | None
    """Of the exported step; None where it was not measured."""
    device: str
    compute: Compute
    stored_as: Stored
    threads: int
    code: str
    """Version of this engine."""
    libraries: dict[str, str]
    python: str
    machine: str


def provenance(job: Job, compute: Compute, stored: Stored, step: int, reason: Reason, end: State) -> Provenance:
    """Of the weights after `step` of a run that has come to `end`."""
    return Provenance(
        base_model=job.plan.model.name,
        inputs=_inputs(job.run),
        plan=job.plan,
        rows=_rows(job.prepared),
        steps=job.prepared.steps,
        exported_step=step,
        exported_because=reason,
        validation_loss=end.best_loss if step == end.best_step else None,
        device=str(job.device),
        compute=compute,
        stored_as=stored,
        threads=torch.get_num_threads(),
        code=_version(),
        libraries=_libraries(),
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
    )


def model_card(made: Provenance) -> str:
    """Front matter that model hubs read, then what was done, in a table."""
    plan = made.plan
    front = {"base_model": made.base_model, "library_name": "transformers", "tags": ["tunesmith", plan.method]}
    if plan.result.form == "adapter":
        front = {**front, "library_name": "peft", "tags": ["tunesmith", plan.method, "lora"]}
    facts = {
        "base model": f"`{made.base_model}`",
        "method": _method(plan),
        "rows": f"{made.rows.training:,} ({made.rows.trained_tokens:,} tokens trained on), "
        f"{made.rows.validation:,} to validate",
        "steps": f"{made.exported_step} of {made.steps} ({made.exported_because.replace('_', ' ')})",
        "validation loss": "not measured" if made.validation_loss is None else f"{made.validation_loss:.4f}",
        "learning rate": f"{plan.optimizer.learning_rate:g}, {plan.optimizer.decay}, {plan.optimizer.name}",
        "rows per step": str(plan.schedule.rows_per_step),
        "sequence limit": f"{plan.data.sequence_limit} tokens",
        "computed in": f"{made.compute} on {made.device}; stored as {made.stored_as}",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    head = "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items())
    return (
        f"---\n{head}\n---\n\n# {made.base_model}, fine-tuned\n\n| | |\n|---|---|\n{table}\n\n"
        f"`{PROVENANCE_FILE}` has the whole plan, the digests of base and data, seeds and library versions.\n"
    )


def _libraries() -> dict[str, str]:
    """The installed ones, with their versions."""
    found: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _version() -> str:
    """Of this distribution; "unknown" where it runs from a directory that was never installed."""
    try:
        return version("tunesmith")
    except PackageNotFoundError:
        return "unknown"


def _inputs(run: Path) -> dict[str, Fileset]:
    """The digests that came with the run, else those of the files themselves."""
    if (run / INPUTS_FILE).exists():
        known: Mapping[str, Mapping[str, str]] = Inputs.read(run / INPUTS_FILE).files
    else:
        known = {directory.name: _digests(directory) for directory in sorted((run / INPUTS).iterdir())}
    return {name: Fileset(digest=digest_of(files.items()), files=dict(files)) for name, files in known.items()}


def _rows(prepared: Prepared) -> RowCounts:
    """What data.json counted."""
    return RowCounts(
        training=prepared.training.rows,
        validation=prepared.validation.rows,
        training_tokens=prepared.training.tokens,
        trained_tokens=prepared.training.trained_tokens,
        truncated=prepared.truncated_rows,
        dropped=prepared.dropped_rows,
    )


def _method(plan: Plan) -> str:
    part = plan.adapter
    if part is None:
        return "supervised fine-tuning of all weights"
    merged = ", added to the base weights" if plan.result.form == "model" else ""
    size = f"rank {part.rank}, alpha {part.alpha}, {len(part.modules)} modules"
    return f"supervised fine-tuning, {_kind(part)} {size}{merged}"


def _kind(part: LoraPart) -> str:
    return ("DoRA" if part.decomposed else "LoRA") + (" (rank-stabilised)" if part.rank_stabilised else "")


def _digests(directory: Path) -> dict[str, str]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): sha256_of(path) for path in files}
