"""Answers on the screen: tables for people, JSON for pipes."""

from __future__ import annotations

import json
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

Columns = Mapping[str, Callable[[M], object]]
"""Heading, and how to get the cell."""

COLOURS = {
    "ok": "green",
    "warn": "yellow",
    "bad": "red",
    "completed": "green",
    "READY": "green",
    "error": "red",
    "ERROR": "red",
    "active": "cyan",
    "PENDING": "cyan",
    "cancelled": "yellow",
    "cancelling": "yellow",
}


def many(session: Session, items: Iterable[M], columns: Columns[M], nothing: str) -> None:
    """A list: a row per item, or a JSON array. `nothing` is what an empty table says."""
    if session.json:
        print_json([item.model_dump(mode="json") for item in items])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for item in items:
        table.add_row(*[cell(get(item)) for get in columns.values()])
    console = Console(highlight=False)
    console.print(table if table.row_count else nothing)


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
    return Text(str(value), style=COLOURS.get(str(value), ""))


def size(count: int) -> str:
    """Bytes as people read them: 269.1 MB."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
