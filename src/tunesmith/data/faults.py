"""Bad rows: where each stands, which of its keys breaks which rule, and the error that tells of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tunesmith.errors import DataError

FAULTS_IN_MESSAGE, FAULTS_IN_DETAIL = 3, 100
"""How many bad rows an error tells of, in its message and in its detail."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands in its data set: `train.jsonl line 17`."""

    file: str
    """As messages call it."""
    line: int
    """1-based; in a file that is one JSON array, the number of the item."""
    unit: Literal["line", "item"] = "line"
    digest: bytes = field(default=b"", compare=False, repr=False)
    """BLAKE2b of 16 bytes over what stands there: the line without the white space around it; of an item its JSON, with
    sorted keys and nothing between the tokens."""

    def __str__(self) -> str:
        return f"{self.file} {self.unit} {self.line}"


class RowFault(DataError):
    """One row breaks a rule; `key` is where in the row (`messages[1].content`), "" for the row itself."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"key '{key}': {reason}" if key else reason)
        self.key = key
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fault:
    """A bad row in its place."""

    place: Place
    key: str
    """"" for the row itself."""
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: key '{self.key}': {self.reason}" if self.key else f"{self.place}: {self.reason}"


class Faults:
    """The bad rows of a data set: all are counted, the first `keep` are kept (None = all)."""

    def __init__(self, keep: int | None = FAULTS_IN_DETAIL) -> None:
        self.count = 0
        self.keep = keep
        self.kept: list[Fault] = []

    def add(self, place: Place, fault: RowFault) -> None:
        """Count one, and keep it while there is room."""
        self.count += 1
        if self.keep is None or len(self.kept) < self.keep:
            self.kept.append(Fault(place, fault.key, fault.reason))

    def in_order(self) -> list[Fault]:
        """Those kept, file by file and line by line, whichever check found them."""
        order = {name: number for number, name in enumerate(dict.fromkeys(each.place.file for each in self.kept))}
        return sorted(self.kept, key=lambda each: (order[each.place.file], each.place.line))

    def raise_any(self) -> None:
        """BadRows if there was a fault."""
        if self.count:
            raise BadRows(self)


class BadRows(DataError):
    """Some rows of a data set break rules: the first few in the message, a line for each kept one in `detail`."""

    def __init__(self, faults: Faults) -> None:
        count, told = faults.count, [str(fault) for fault in faults.in_order()]
        shown = told[:FAULTS_IN_MESSAGE]
        more = f"; and {count - len(shown):,} more" if count > len(shown) else ""
        super().__init__(f"{count:,} bad row{'s' if count > 1 else ''}: {'; '.join(shown)}{more}")
        self.detail = "\n".join(told)
