"""`inputs.json`: which bytes lie below `inputs/`, so that a result can say what it was made from."""

from __future__ import annotations

from tunesmith.handoff.base import HandedFile

INPUTS_FILE = "inputs.json"


class Inputs(HandedFile):
    """The filesets of a run."""

    files: dict[str, dict[str, str]]
    """Name below `inputs/` (model, data, validation) -> path in it -> sha256 of the bytes in hex."""
