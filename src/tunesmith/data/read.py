"""Reads data files: JSON lines, or one JSON array of rows. UTF-8, a byte order mark tolerated, blank lines skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from tunesmith.data.rows import Faults, Row, RowFault, parse_row
from tunesmith.errors import DataError

_BOM = b"\xef\xbb\xbf"


def read_rows(path: Path, name: str, faults: Faults) -> Iterator[tuple[str, Row]]:
    """The lawful rows with their places (`train.jsonl line 17`), in order; the others go into `faults`.

    `name` is how messages call the file.
    """
    for place, found in _values(path, name):
        try:
            yield place, parse_row(_loaded(found) if isinstance(found, bytes) else found)
        except DataError as fault:
            faults.add(place, fault)


def _values(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """Lines as bytes, or the items of an array as they are."""
    if path.suffix == ".json" and _begins_as_array(path):
        try:
            items = _loaded(path.read_bytes().removeprefix(_BOM))
        except RowFault as fault:
            raise DataError(f"{name}: {fault.message}") from None
        yield from ((f"{name} item {number}", item) for number, item in enumerate(items, 1))
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = (line.removeprefix(_BOM) if number == 1 else line).strip()
            if content:
                yield f"{name} line {number}", content


def _begins_as_array(path: Path) -> bool:
    """True for a file that is one array; its first line may also be a row of its own that is one."""
    with path.open("rb") as file:
        first = file.readline().removeprefix(_BOM).strip()
        rest = file.read(1)
    return first.startswith(b"[") and not (first.endswith(b"]") and rest)


def _loaded(content: bytes) -> Any:
    """The JSON value of `content`; RowFault where it is not UTF-8, not JSON, or holds half a character."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowFault("", f"not UTF-8: byte {error.object[error.start]:#04x} at column {error.start + 1}") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise RowFault("", f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise RowFault("", "not JSON that can be read: nested too deeply") from None
    if "\\u" in text:
        _refuse_half_characters(value, "")
    return value


def _refuse_constant(constant: str) -> NoReturn:
    raise RowFault("", f"not JSON: {constant} is not a JSON number")


def _refuse_half_characters(value: Any, key: str) -> None:
    """A lone surrogate such as \\ud83d is no character and cannot be tokenised."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            half = ord(value[error.start])
            raise RowFault(key, f"holds half a character (\\u{half:04x}) at position {error.start}") from None
    elif isinstance(value, dict):
        for name, inner in value.items():
            _refuse_half_characters(name, key or "a key's name")
            _refuse_half_characters(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _refuse_half_characters(inner, f"{key}[{number}]")
