"""The pass over a run's rows: find, lint, split, render, tokenise, truncate, write, count.

Everything that is wrong with the data set is found here, before any training slot is taken.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunesmith.data.encode import Encoder, Placed, TokenRow
from tunesmith.data.faults import BadRows, Faults, Place
from tunesmith.data.find import NamedFile, find_training, find_validation, named, refuse_empty
from tunesmith.data.packs import pack, packs_per_step
from tunesmith.data.read import read_rows
from tunesmith.data.rows import RowParser, RowRules, as_columns
from tunesmith.data.schedule import steps_per_epoch, total_steps, validation_steps
from tunesmith.data.splits import held_back
from tunesmith.data.store import RowWriter
from tunesmith.data.tokens import Tokenizer
from tunesmith.errors import DataError
from tunesmith.handoff.events import Event, PreparedRows, Preparing, Warned
from tunesmith.handoff.inputs import DATA, MODEL, VALIDATION
from tunesmith.handoff.plan import AtTheEnd, DataPart, EachEpoch, OptimizerPart, Plan
from tunesmith.handoff.prepared import PREPARED_FILE, Packs, Prepared, RowSet

ROWS = "data"
"""Where a run's rows lie when they are prepared."""

CHUNK_ROWS = 1_000
"""Rows tokenised at a time: enough to keep all threads busy, few enough for memory and progress."""

NOTHING_TO_VALIDATE_ON = (
    "schedule.val_check_interval (unsloth: schedule.eval_steps) asks for validations, and there are no validation "
    "rows, so none runs. Put some into a val*.jsonl beside the training rows, or name a fileset in dataset.validation "
    "(unsloth: dataset.validation_path)"
)

Log = Callable[[Event], None]


@dataclass(slots=True)
class _Counts:
    """What became of the rows, over both splits."""

    truncated: int = 0
    dropped: int = 0
    dropped_validation: int = 0
    """Those of them that were to be validated on."""
    without_end: int = 0
    """Rows whose last answer is whole and has no end token."""


@dataclass(frozen=True, slots=True)
class _Split:
    """Which rows are for validation: those of `held_back`, and all behind the first `training` ones."""

    files: list[NamedFile]
    training: int
    held_back: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Kept:
    """The rows that are trained or validated on, on disk."""

    directory: Path
    sources: tuple[str, ...]
    training: RowSet
    validation: RowSet


def prepare(run: Path, plan: Plan, log: Log) -> Prepared:
    """Write `data/` and `data.json` into the run; DataError with all that is wrong if the rows cannot be trained on."""
    rules = _rules(plan.data)
    training_files, validation_files = _find(run, plan.data, log)
    log(Preparing(rows=0))
    encoder = Encoder.of(run / MODEL, plan.data.chat_template, plan.data.sequence_limit)
    files = [*training_files, *validation_files]
    counted, parse = Faults(), RowParser(rules)
    training_rows = sum(1 for _ in _read(training_files, counted, parse))
    validation_rows = sum(1 for _ in _read(validation_files, counted, parse))
    if counted.count:
        raise BadRows(_all_faults(encoder, files, rules, log))
    refuse_empty(training_rows, training_files)
    refuse_empty(validation_rows, validation_files)
    if parse.columns:
        log(Warned(message=as_columns(parse.columns)))
    chosen = held_back(0 if validation_files else training_rows, plan.data.split_fraction, plan.data.seed)
    temporary = _empty_directory(run / f".{ROWS}.tmp")
    kept, counts = _tokenised(temporary, encoder, _Split(files, training_rows, chosen), rules, log)
    _refuse_untrainable(plan.data, kept, counts, bool(validation_files), log)
    if not (kept.validation.rows or counts.dropped_validation or _as_usual(plan)):
        log(Warned(message=NOTHING_TO_VALIDATE_ON))
    if counts.without_end:
        log(Warned(message=_without_end(counts.without_end, encoder.tokenizer)))
    prepared = _counted(plan, kept, counts)
    if plan.optimizer.warmup_steps > prepared.steps:
        log(Warned(message=_never_warm(plan.optimizer, prepared.steps)))
    shutil.rmtree(run / ROWS, ignore_errors=True)
    temporary.rename(run / ROWS)
    prepared.write(run / PREPARED_FILE)
    log(_summary(prepared))
    return prepared


def _tokenised(directory: Path, encoder: Encoder, split: _Split, rules: RowRules, log: Log) -> tuple[_Kept, _Counts]:
    """All rows written into `directory`; BadRows if the template refuses some."""
    faults, counts = Faults(), _Counts()
    sources = tuple(name for _, name in split.files)
    with (
        RowWriter(directory, "training", ROWS, sources) as training,
        RowWriter(directory, "validation", ROWS, sources) as validation,
    ):
        rows = _encoded(encoder, _read(split.files, faults, RowParser(rules)), faults, log)
        for number, (place, row) in enumerate(rows):
            validates = number >= split.training or number in split.held_back
            counts.truncated += row.truncated
            if any(row.mask):
                (validation if validates else training).append(row, place)
                counts.without_end += not row.truncated and row.last_trained not in encoder.tokenizer.end_ids
            else:
                counts.dropped += 1
                counts.dropped_validation += validates
        faults.raise_any()
        return _Kept(directory, sources, training.finish(), validation.finish()), counts


def _rules(plan: DataPart) -> RowRules:
    return RowRules(plan.text_field, plan.prompt_template, plan.conversations, plan.columns)


def _find(run: Path, part: DataPart, log: Log) -> tuple[list[NamedFile], list[NamedFile]]:
    """Training and validation files. A validation fileset wins over validation files beside the training rows."""
    root = run / DATA
    found = find_training(root)
    training, validation = named(found.training, root), named(found.validation, root)
    unused = [name for _, name in named(found.unused, root)]
    if part.validation == "files":
        unused += [name for _, name in validation]
        root = run / VALIDATION
        validation = named(find_validation(root).validation, root, "validation: ")
    if unused:
        log(Warned(message=f"data files that are not used: {', '.join(unused)}"))
    return training, validation


def _read(files: Iterable[NamedFile], faults: Faults, parse: RowParser) -> Iterator[Placed]:
    for path, name in files:
        yield from read_rows(path, name, faults, parse)


def _all_faults(encoder: Encoder, files: Sequence[NamedFile], rules: RowRules, log: Log) -> Faults:
    """What is wrong with any row, be it unlawful or refused by the template: so that one job tells it all."""
    faults, done = Faults(), 0
    rows = _read(files, faults, RowParser(rules))
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        encoder.render(chunk, faults)
        done += len(chunk)
        log(Preparing(rows=done))
    return faults


def _encoded(encoder: Encoder, rows: Iterator[Placed], faults: Faults, log: Log) -> Iterator[tuple[Place, TokenRow]]:
    """The rows as tokens; after a first fault the rest is only looked through for more."""
    done = 0
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        tokens = encoder.encode(chunk, faults)
        done += len(chunk)
        log(Preparing(rows=done))
        if not faults.count:
            yield from ((place, row) for (place, _), row in zip(chunk, tokens, strict=True) if row)


def _refuse_untrainable(part: DataPart, kept: _Kept, counts: _Counts, validation_files: bool, log: Log) -> None:
    """DataError if there were rows to train or to validate on and none is left; a split's own loss is only told."""
    why = (
        f"dropped rows have nothing to train on within {part.sequence_limit} tokens: what is to be learnt lies behind "
        "them, or a completion does not fit; raise max_seq_length, as far as the model's context goes"
    )
    if not kept.training.rows:
        raise DataError(f"no training rows are left: all {counts.dropped - counts.dropped_validation} {why}")
    if kept.validation.rows or not counts.dropped_validation:
        return
    nothing = f"no validation rows are left: all {counts.dropped_validation} {why}"
    if validation_files:
        raise DataError(nothing)
    log(Warned(message=f"{nothing}; there is no validation loss"))


def _as_usual(plan: Plan) -> bool:
    """Whether nobody said when to validate: both dialects' defaults."""
    return isinstance(plan.schedule.validate_at, EachEpoch | AtTheEnd)


def _without_end(rows: int, tokenizer: Tokenizer) -> str:
    ends = ", ".join(tokenizer.decode([token], skip_special=False) for token in sorted(tokenizer.end_ids))
    return (
        f"rows whose last answer has no end token ({ends}) behind it: {rows}; the model does not learn there when to "
        "stop. Use a chat template that puts one there, or name its own one in eos_token_id of generation_config.json"
    )


def _never_warm(part: OptimizerPart, steps: int) -> str:
    last = part.learning_rate * steps / part.warmup_steps
    return (
        f"the warm-up ({part.warmup_steps:,} steps) is longer than the run ({steps:,}): the learning rate ends at "
        f"{last:.2g} and never comes to {part.learning_rate:g}; lower warmup_steps"
    )


def _counted(plan: Plan, kept: _Kept, counts: _Counts) -> Prepared:
    """The numbers of the run, with its rows in packs where the plan wants it."""
    packs = _packed(plan, kept) if plan.data.packing else None
    units, per_step = (packs.packs, packs.per_step) if packs else (kept.training.rows, plan.schedule.rows_per_step)
    per_epoch = steps_per_epoch(units, per_step)
    steps = total_steps(plan.schedule.stop, per_epoch)
    validate_at = validation_steps(plan.schedule.validate_at, per_epoch, steps) if kept.validation.rows else ()
    return Prepared(
        training=kept.training,
        validation=kept.validation,
        files=kept.sources,
        packs=packs,
        truncated_rows=counts.truncated,
        dropped_rows=counts.dropped,
        steps_per_epoch=per_epoch,
        steps=steps,
        validate_at=validate_at,
    )


def _packed(plan: Plan, kept: _Kept) -> Packs:
    lengths = np.diff(np.fromfile(kept.directory / Path(kept.training.offsets).name, "<i8"))
    packed = pack(lengths, plan.data.sequence_limit, plan.data.pack_window, plan.schedule.seed)
    return packed.write(kept.directory, ROWS, packs_per_step(plan.schedule.rows_per_step, len(packed), len(lengths)))


def _summary(prepared: Prepared) -> PreparedRows:
    return PreparedRows(
        training_rows=prepared.training.rows,
        validation_rows=prepared.validation.rows,
        training_tokens=prepared.training.tokens,
        trained_tokens=prepared.training.trained_tokens,
        truncated_rows=prepared.truncated_rows,
        dropped_rows=prepared.dropped_rows,
        steps=prepared.steps,
        steps_per_epoch=prepared.steps_per_epoch,
        packs=prepared.packs.packs if prepared.packs else 0,
        packs_per_step=prepared.packs.per_step if prepared.packs else 0,
    )


def _empty_directory(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path
