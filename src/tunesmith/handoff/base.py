"""The base of everything the towers write to each other: closed, frozen, versioned JSON.

A file is written whole under a temporary name, flushed to disk and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import ConfigDict, ValidationError

from tunesmith.described import Described
from tunesmith.errors import EngineError

VERSION = 1

Compute = Literal["bf16", "fp16", "fp32"]
"""Type of matrix products."""
Stored = Literal["bfloat16", "float16", "float32"]
"""Type of weights in a file."""
STORED: dict[Compute, Stored] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
COMPUTED: dict[str, Compute] = {stored: compute for compute, stored in STORED.items()}
"""What a type is called in a file, by what it is called where it computes, and the other way round."""


class Handed(Described):
    """A value that crosses from one tower to the other."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HandedFile(Handed):
    """A handed value that lives in a file of its own."""

    version: int = VERSION
    """Shape of this file; a reader refuses any other."""

    def write(self, path: Path) -> None:
        """Replace `path` atomically."""
        write_atomically(path, self.model_dump_json(indent=1).encode())

    @classmethod
    def read(cls, path: Path) -> Self:
        """The value in `path`; EngineError if it is missing, of another version, or not lawful."""
        try:
            value = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise EngineError(f"{path} does not exist", "TrainingConfigError") from None
        except ValidationError as error:
            raise EngineError(f"{path} is not a lawful {cls.__name__}: {error}", "TrainingConfigError") from None
        if value.version != VERSION:
            raise EngineError(f"{path} has version {value.version}; this build reads {VERSION}", "TrainingConfigError")
        return value


def write_atomically(path: Path, content: bytes) -> None:
    """Temporary name beside `path`, flush to disk, rename: `path` is the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
