"""Reads data files: JSON lines, or one JSON array of rows. UTF-8, a byte order mark tolerated, blank lines skipped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from tunesmith.data.faults import Faults, Place, RowFault
from tunesmith.data.rows import Row, RowParser

DIGEST_BYTES = 16
_BOM = b"\xef\xbb\xbf"


def read_rows(path: Path, name: str, faults: Faults, parse: RowParser) -> Iterator[tuple[Place, Row]]:
    """The lawful rows with their places, in order; the others go into `faults`, and reading goes on.

    `name` is how messages call the file.
    """
    for place, found in _values(path, name, faults):
        try:
            yield place, parse(_loaded(found) if isinstance(found, bytes) else found)
        except RowFault as fault:
            faults.add(place, fault)


def _values(path: Path, name: str, faults: Faults) -> Iterator[tuple[Place, Any]]:
    """Lines as bytes, or the items of an array as they are; an array that cannot be read is one fault."""
    if path.suffix == ".json" and _begins_as_array(path):
        content = path.read_bytes().removeprefix(_BOM)
        try:
            items = _loaded(content)
        except RowFault as fault:
            faults.add(Place(name, _line_of(content)), fault)
            return
        yield from ((Place(name, number, "item", _digest_of(item)), item) for number, item in enumerate(items, 1))
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = (line.removeprefix(_BOM) if number == 1 else line).strip()
            if content:
                yield Place(name, number, digest=_digest(content)), content


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _digest_of(item: Any) -> bytes:
    """As `Place.digest` says; half characters are no UTF-8, but are told of later."""
    text = json.dumps(item, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return _digest(text.encode("utf-8", "surrogatepass"))


def _begins_as_array(path: Path) -> bool:
    """True for a file that is one array; its first line may also be a row of its own that is one."""
    with path.open("rb") as file:
        first = file.readline().removeprefix(_BOM).strip()
        rest = file.read(1)
    return first.startswith(b"[") and not (first.endswith(b"]") and rest)


def _line_of(content: bytes) -> int:
    """The line in which `content` stops being UTF-8 or JSON; 1 when neither is the matter."""
    try:
        json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1
    except json.JSONDecodeError as error:
        return error.lineno
    except (ValueError, RecursionError):
        return 1
    return 1


def _loaded(content: bytes) -> Any:
    """The JSON value of `content`; RowFault where it is not UTF-8, not JSON, or holds half a character."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowFault("", f"not UTF-8: byte {error.object[error.start]:#04x} at column {error.start + 1}") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:
            _refuse_half_characters(value, "")
    except json.JSONDecodeError as error:
        raise RowFault("", f"not JSON: {error.msg} at column {error.colno}") from None
    except ValueError:
        raise RowFault("", "not JSON that can be read: a number has more than 4,300 digits") from None
    except RecursionError:
        raise RowFault("", "not JSON that can be read: nested too deeply") from None
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
