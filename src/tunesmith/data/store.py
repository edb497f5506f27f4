"""Token rows on disk: a few flat files for each split, written once, read through memory maps.

The layout is documented at `tunesmith.handoff.prepared.RowSet`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tunesmith.data.encode import TokenRow
from tunesmith.data.faults import Place
from tunesmith.handoff.prepared import RowSet

PARTS = ("ids", "mask", "offsets", "places", "digests")
"""Of a RowSet, each a file."""
_PLACE = struct.Struct("<ii")


class RowWriter:
    """Appends rows to one split's files; `finish` flushes them to disk."""

    def __init__(self, directory: Path, name: str, final: str, sources: Sequence[str]) -> None:
        """Files go into `directory` as `name.*.bin`; the RowSet names them below `final`, where they will lie.

        `sources` are the files that rows come from, as their places name them.
        """
        self._names = {part: f"{name}.{part}.bin" for part in PARTS}
        self._final = final
        self._sources = {source: number for number, source in enumerate(sources)}
        self._files = {part: (directory / name).open("wb") for part, name in self._names.items()}
        self._offsets = [0]
        self._trained = 0

    def append(self, row: TokenRow, place: Place) -> None:
        """Write one row behind the others, and where it comes from."""
        line = place.line if place.unit == "line" else -place.line
        self._files["ids"].write(np.asarray(row.ids, "<i4").tobytes())
        self._files["mask"].write(bytes(row.mask))
        self._files["places"].write(_PLACE.pack(self._sources[place.file], line))
        self._files["digests"].write(place.digest)
        self._offsets.append(self._offsets[-1] + len(row.ids))
        self._trained += sum(row.mask)

    def finish(self) -> RowSet:
        """Flush everything to disk and say what is there."""
        self._files["offsets"].write(np.asarray(self._offsets, "<i8").tobytes())
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        lengths = np.diff(self._offsets)
        return RowSet(
            rows=len(lengths),
            tokens=self._offsets[-1],
            trained_tokens=self._trained,
            longest=int(lengths.max(initial=0)),
            **{part: f"{self._final}/{name}" for part, name in self._names.items()},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()


class Rows:
    """The rows of one split, read-only."""

    def __init__(self, run: Path, split: RowSet, sources: Sequence[str] = ()) -> None:
        """Map the files of `split`, whose paths are relative to `run`; `sources` (`Prepared.files`) is for `place`."""
        self._ids: npt.NDArray[np.int32] = _mapped(run / split.ids, "<i4", split.tokens)
        self._mask: npt.NDArray[np.uint8] = _mapped(run / split.mask, "u1", split.tokens)
        self._offsets: npt.NDArray[np.int64] = np.fromfile(run / split.offsets, "<i8")
        self._places = run / split.places if split.places else None
        self._sources = sources
        self.lengths: npt.NDArray[np.int64] = np.diff(self._offsets)
        """Tokens of each row."""

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, row: int) -> npt.NDArray[np.int32]:
        """The row's tokens."""
        return self._ids[self._offsets[row] : self._offsets[row + 1]]

    def mask(self, row: int) -> npt.NDArray[np.uint8]:
        """1 where the token is trained on, else 0."""
        return self._mask[self._offsets[row] : self._offsets[row + 1]]

    def place(self, row: int) -> str:
        """Where the row comes from, for messages: `train.jsonl line 17`; its number in a run that did not note it."""
        if not self._places or not self._sources:
            return f"row {row}"
        with self._places.open("rb") as file:
            file.seek(row * _PLACE.size)
            source, line = _PLACE.unpack(file.read(_PLACE.size))
        return str(Place(self._sources[source], abs(line), "line" if line > 0 else "item"))


def _mapped(path: Path, kind: str, size: int) -> npt.NDArray[Any]:
    """A file of `size` values; an empty file cannot be mapped."""
    return np.memmap(path, kind, "r", shape=(size,)) if size else np.empty(0, kind)
