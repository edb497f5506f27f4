"""Token rows on disk: three flat files for each split, written once, read through memory maps.

The layout is documented at `tunesmith.handoff.prepared.RowSet`.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tunesmith.data.encode import TokenRow
from tunesmith.handoff.prepared import RowSet


class RowWriter:
    """Appends rows to one split's files; `finish` flushes them to disk."""

    def __init__(self, directory: Path, name: str, final: str) -> None:
        """Files go into `directory` as `name.*.bin`; the RowSet names them below `final`, where they will lie."""
        self._names = {part: f"{name}.{part}.bin" for part in ("ids", "mask", "offsets")}
        self._final = final
        self._directory = directory
        self._ids = (directory / self._names["ids"]).open("wb")
        self._mask = (directory / self._names["mask"]).open("wb")
        self._offsets = [0]
        self._trained = 0

    def append(self, row: TokenRow) -> None:
        """Write one row behind the others."""
        self._ids.write(np.asarray(row.ids, "<i4").tobytes())
        self._mask.write(bytes(row.mask))
        self._offsets.append(self._offsets[-1] + len(row.ids))
        self._trained += sum(row.mask)

    def finish(self) -> RowSet:
        """Flush everything to disk and say what is there."""
        with (self._directory / self._names["offsets"]).open("wb") as offsets:
            offsets.write(np.asarray(self._offsets, "<i8").tobytes())
            for file in (self._ids, self._mask, offsets):
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
        self._ids.close()
        self._mask.close()


class Rows:
    """The rows of one split, read-only."""

    def __init__(self, run: Path, split: RowSet) -> None:
        """Map the files of `split`, whose paths are relative to `run`."""
        self._ids: npt.NDArray[np.int32] = _mapped(run / split.ids, "<i4", split.tokens)
        self._mask: npt.NDArray[np.uint8] = _mapped(run / split.mask, "u1", split.tokens)
        self._offsets: npt.NDArray[np.int64] = np.fromfile(run / split.offsets, "<i8")
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


def _mapped(path: Path, kind: str, size: int) -> npt.NDArray[Any]:
    """A file of `size` values; an empty file cannot be mapped."""
    return np.memmap(path, kind, "r", shape=(size,)) if size else np.empty(0, kind)
