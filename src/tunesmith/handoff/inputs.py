"""`inputs.json`: which bytes lie below `inputs/`, so that a result can say what it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tunesmith.handoff.base import HandedFile

INPUTS_FILE = "inputs.json"
INPUTS = Path("inputs")
MODEL, DATA, VALIDATION = INPUTS / "model", INPUTS / "data", INPUTS / "validation"
"""Where they lie in a run."""


class Inputs(HandedFile):
    """The filesets of a run."""

    files: dict[str, dict[str, str]]
    """Name below `inputs/` (model, data, validation) -> path in it -> sha256 of the bytes in hex."""


def digest_of(files: Iterable[tuple[str, str]]) -> str:
    """Of all paths and sha256 digests, in any order: sha256 over the sorted lines `digest path`, in hex."""
    return hashlib.sha256("".join(sorted(f"{digest} {path}\n" for path, digest in files)).encode()).hexdigest()
