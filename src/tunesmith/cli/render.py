"""Answers on the screen: tables for people, JSON for pipes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.cli.session import Session


class Shown(Protocol):
    """A thing of the wire: any pydantic model. A protocol, so that `--help` does not load pydantic."""

    def model_dump(self, *, mode: str) -> Any:
        """As plain data."""


M = TypeVar("M", bound=Shown)

GAP = 2
"""Blanks that rich puts beside a column."""
READABLE = 7
"""Characters that a column is left with."""
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a terminal would obey instead of showing it."""

Columns = Mapping[str, Callable[[M], object]]
"""Heading, and how to get the cell."""

COLOURS = {
    "ok": "green",
    "warn": "yellow",
    "bad": "red",
    "completed": "green",
    "READY": "green",
    "failed": "red",
    "error": "red",
    "ERROR": "red",
    "active": "cyan",
    "pending": "cyan",
    "PENDING": "cyan",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "pausing": "yellow",
    "paused": "yellow",
    "resuming": "cyan",
}


def many(session: Session, items: Iterable[M], columns: Columns[M], nothing: str) -> None:
    """A list: a row per item, or a JSON array. `nothing` is what an empty table says."""
    if session.json:
        print_json([item.model_dump(mode="json") for item in items])
        return
    console = Console(highlight=False)
    rows = [[line(get(item)) for get in columns.values()] for item in items]
    if not rows:
        console.print(nothing)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, width in zip(columns, fitting(list(columns), rows, console.width), strict=True):
        cut = width is not None
        table.add_column(heading, max_width=width, no_wrap=cut, overflow="ellipsis" if cut else "fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def one(session: Session, item: M, columns: Columns[M]) -> None:
    """A thing: a line per column, or a JSON object."""
    if session.json:
        print_json(item.model_dump(mode="json"))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for heading, get in columns.items():
        value = get(item)
        if value not in (None, ""):
            table.add_row(heading, cell(value))
    Console(highlight=False).print(table)


def gone(session: Session, name: str) -> None:
    """Say that a thing was deleted."""
    if session.json:
        print_json({"name": name, "status": "DELETED"})
        return
    sys.stdout.write(f"{name} is deleted\n")


def fitting(headings: list[str], rows: list[list[Text]], room: int) -> list[int | None]:
    """How wide columns may be so that an item is one line of `room`; None = as wide as they are.

    The widest is cut first, down to READABLE. Names, and the first and the last column, stay whole.
    """
    widths = [max(len(heading), *(row[at].cell_len for row in rows)) for at, heading in enumerate(headings)]
    cut: list[int | None] = [None] * len(widths)
    middle = [at for at in range(1, len(widths) - 1) if headings[at] != "NAME"]
    excess = sum(widths) + GAP * len(widths) - room
    while excess > 0 and middle:
        widest = max(middle, key=lambda at: widths[at])
        if widths[widest] <= READABLE:
            break
        widths[widest] -= 1
        cut[widest] = widths[widest]
        excess -= 1
    return cut


def pairs(fields: Mapping[str, Any]) -> str:
    """Custom fields in a word: `team=mail, stage={"of": 3}`."""
    words = [
        f"{key}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in fields.items()
    ]
    return ", ".join(words)


def print_json(value: Any) -> None:
    """JSON on the standard output, readable and complete."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def cell(value: object) -> Text:
    """A value as a cell: times in local time, numbers with separators, statuses in colour."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, datetime):
        return Text(value.replace(tzinfo=value.tzinfo or UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S"))
    if isinstance(value, int):
        return Text(f"{value:,}")
    return Text(UNPRINTABLE.sub("\ufffd", str(value)), style=COLOURS.get(str(value), ""))


def line(value: object) -> Text:
    """As `cell`, on one line; no text is as nothing."""
    return cell(" ".join(value.split()) or None if isinstance(value, str) else value)


def size(count: int) -> str:
    """Bytes as people read them: 269.1 MB."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
