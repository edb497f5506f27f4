"""Finds the data files of a fileset: which ones are training rows and which are validation rows.

A directory's name decides before a file's: everything in `train/` is training. Names decide at the root and one
directory down, because an upload may have kept its folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.errors import DataError

DEEPEST = 3
"""Parts of a data file's path at most: `folder/train/rows.jsonl`."""

SUFFIXES = (".jsonl", ".json")
"""Of files that hold rows."""

NamedFile = tuple[Path, str]
"""A data file and how messages call it."""

_TRAINING_DIRECTORY = re.compile(r"train|training", re.IGNORECASE)
_VALIDATION_DIRECTORY = re.compile(r"val|validation|dev", re.IGNORECASE)
_TRAINING_FILE = re.compile(r"train.*", re.IGNORECASE)
_VALIDATION_FILE = re.compile(r"(val|dev).*", re.IGNORECASE)
_LOOKED_FOR = (
    "looked for train*.jsonl, files in train/ or training/, and any other .jsonl (or .json) "
    "at the root and one directory down"
)


@dataclass(frozen=True, slots=True)
class Found:
    """Data files by purpose, each list in order of name."""

    training: list[Path]
    validation: list[Path]
    unused: list[Path]
    """Data files that are neither, because others carry the names that were looked for."""


def find_training(root: Path) -> Found:
    """Training and validation files below `root`; DataError with what was looked for if nothing can be trained on."""
    training, validation, other = _sorted_out(root)
    if training:
        return Found(training, validation, other)
    lines = [path for path in other if path.suffix == ".jsonl"] or other
    if not lines:
        raise DataError(f"no training data: {_LOOKED_FOR}; {_what_is_there(root)}")
    return Found(lines, validation, [path for path in other if path not in lines])


def find_validation(root: Path) -> Found:
    """Files of a fileset that was given for validation: those named so, else whatever holds rows."""
    training, validation, other = _sorted_out(root)
    lines = [path for path in other if path.suffix == ".jsonl"] or other
    found = validation or lines or training
    if not found:
        raise DataError(f"no validation data: looked for .jsonl and .json files; {_what_is_there(root)}")
    return Found([], found, [path for path in (*training, *other) if path not in found])


@dataclass(frozen=True, slots=True)
class Inputs:
    """Data files by purpose, with the names that messages call them."""

    training: list[NamedFile]
    validation: list[NamedFile]
    unused: list[str]

    @property
    def all(self) -> list[NamedFile]:
        """Those whose rows count."""
        return [*self.training, *self.validation]


def inputs(paths: Sequence[Path]) -> Inputs:
    """What a job would read at `paths`: a directory is looked through as a fileset, a file holds training rows.

    DataError for what is not there, for a file that cannot hold rows, and as `find_training`.
    """
    found = Inputs([], [], [])
    for path in paths:
        if path.is_dir():
            within = find_training(path)
            before = "" if len(paths) == 1 else f"{path}/"
            found.training.extend(named(within.training, path, before))
            found.validation.extend(named(within.validation, path, before))
            found.unused.extend(name for _, name in named(within.unused, path, before))
        elif not path.is_file():
            raise DataError(f"there is no file or directory '{path}'")
        elif path.suffix not in SUFFIXES:
            raise DataError(f"{path}: rows are read from {' and '.join(SUFFIXES)} files, so a job would not read this")
        else:
            found.training.append((path, str(path)))
    return found


def named(paths: Iterable[Path], root: Path, before: str = "") -> list[NamedFile]:
    """Files below `root` with their names from there; `before` is put in front."""
    return [(path, f"{before}{path.relative_to(root).as_posix()}") for path in paths]


def refuse_empty(rows: int, files: Sequence[NamedFile]) -> None:
    """DataError if files were found and hold no row."""
    if files and not rows:
        raise DataError(f"there is not a single row in {', '.join(name for _, name in files)}")


def _sorted_out(root: Path) -> tuple[list[Path], list[Path], list[Path]]:
    training: list[Path] = []
    validation: list[Path] = []
    other: list[Path] = []
    for path in _data_files(root):
        folders = path.relative_to(root).parts[:-1]
        if any(_TRAINING_DIRECTORY.fullmatch(folder) for folder in folders):
            training.append(path)
        elif any(_VALIDATION_DIRECTORY.fullmatch(folder) for folder in folders):
            validation.append(path)
        elif _TRAINING_FILE.fullmatch(path.name):
            training.append(path)
        elif _VALIDATION_FILE.fullmatch(path.name):
            validation.append(path)
        elif len(folders) < DEEPEST - 1:
            other.append(path)
    return training, validation, other


def _data_files(root: Path) -> list[Path]:
    return [path for path in sorted(_files(root, DEEPEST)) if path.suffix in SUFFIXES]


def _files(directory: Path, depth: int) -> Iterator[Path]:
    """Files at most `depth` parts below, through links, without hidden ones."""
    if not depth or not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files(path, depth - 1)
        else:
            yield path


def _what_is_there(root: Path) -> str:
    names = [str(path.relative_to(root)) for path in sorted(_files(root, DEEPEST))]
    if not names:
        return "there are no files"
    return f"there is {', '.join(names[:10])}{f' and {len(names) - 10} more' if len(names) > 10 else ''}"
