"""A list's query string as a filter: brackets, JSON, and what the published client makes of lists. Contract 1.4.

All of them are read into plain dictionaries first (`filter[name][$like]=x` is `{"name": {"$like": "x"}}`), and one
function turns those into the tree. The text grammar has a file of its own.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from tunesmith.api.filter_text import parse_text
from tunesmith.api.filters import DEEPEST, AllOf, AnyOf, Filter, Not, Op, dotted, steps_of, tested, within_bounds
from tunesmith.errors import BadRequest

LONGEST_FILTER = 32_768
"""Characters of all filter parameters together at most."""

OPERATORS = {name: op for op in Op for name in (op.value, op.value.removeprefix("$"))}
LOGICAL = {name: f"${name.removeprefix('$')}" for name in ("$and", "$or", "$not", "and", "or", "not")}

_KEY = re.compile(r"filter((?:\[[^\[\]]+\])+)")


class _Raw(str):
    """A value of the query string: text that may stand for null, a list or an object."""

    __slots__ = ()


def parse(query: Iterable[tuple[str, str]]) -> Filter | None:
    """The filter in a query string's pairs (`filter=...`, `filter[field][$op]=...`), or None without one.

    BadRequest says which part cannot be understood.
    """
    parts: list[Filter] = []
    brackets: dict[str, Any] = {}
    length = 0
    for key, value in query:
        length += len(key) + len(value)
        if length > LONGEST_FILTER:
            raise BadRequest(f"Invalid filter: longer than {LONGEST_FILTER} characters")
        if key == "filter":
            found = _whole(value.strip())
            parts.extend([found] if found else [])
        else:
            _put(brackets, key, _Raw(value))
    if found := _tree(brackets, (), 1):
        parts.append(found)
    if not parts:
        return None
    return within_bounds(parts[0] if len(parts) == 1 else AllOf(tuple(parts)))


def _whole(value: str) -> Filter | None:
    """`filter=...`: JSON when it starts like an object, else text."""
    if not value:
        return None
    if not value.startswith("{"):
        return parse_text(value)
    return _tree(_literal(value), (), 1)


def _put(brackets: dict[str, Any], key: str, value: _Raw) -> None:
    """Add `filter[a][b]=value` to `{"a": {"b": ...}}`."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise BadRequest(
            f"Invalid filter: {key[:80]!r} cannot be read; write filter[field]=value or filter[field][$op]=value"
        )
    *outer, last = found.group(1)[1:-1].split("][")
    if len(outer) >= DEEPEST:
        raise BadRequest(f"Invalid filter: nested deeper than {DEEPEST} levels; ask for less at a time")
    place = brackets
    for name in outer:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            _twice(key)
    if last in place:
        _twice(key)
    place[last] = value


def _twice(key: str) -> NoReturn:
    raise BadRequest(f"Invalid filter: {key[:80]!r} says something that another part has said; use $and or $in")


def _tree(found: Any, path: tuple[str, ...], depth: int) -> Filter | None:
    """An object of fields, operators or logic, standing behind the field `path`; None when it is empty."""
    if not isinstance(found, dict):
        raise BadRequest(f'Invalid filter: {_shown(found)} should be an object of fields, as in {{"name": "x"}}')
    if depth > DEEPEST:
        raise BadRequest(f"Invalid filter: nested deeper than {DEEPEST} levels; ask for less at a time")
    logical = [key for key in found if key in LOGICAL]
    if logical and len(logical) < len(found):
        raise BadRequest(
            f"Invalid filter: '{logical[0]}' stands beside fields at the same level; put all of them into $and"
        )
    parts = [_entry(key, value, path, depth) for key, value in found.items()]
    held = [part for part in parts if part is not None]
    return None if not held else held[0] if len(held) == 1 else AllOf(tuple(held))


def _entry(key: Any, value: Any, path: tuple[str, ...], depth: int) -> Filter | None:
    """One key of an object with what stands behind it."""
    if not isinstance(key, str) or not key:
        raise BadRequest(f"Invalid filter: {_shown(key)} is not the name of a field")
    if key in LOGICAL:
        return _logic(LOGICAL[key], value, path, depth)
    if path and key in OPERATORS:
        return _test(path, OPERATORS[key], value)
    if key.startswith("$"):
        if key in OPERATORS:
            raise BadRequest(f"Invalid filter: '{key}' needs a field in front, as in filter[name][{key}]=value")
        raise BadRequest(f"{_shown(key)} is not a valid FilterOperator")
    inner = (*path, key) if path else steps_of(key)
    if isinstance(value, _Raw):
        value = _read(value)
    if isinstance(value, dict):
        return _tree(value, inner, depth + 1)
    return _test(inner, Op.IN if isinstance(value, list) else Op.EQ, value)


def _logic(name: str, value: Any, path: tuple[str, ...], depth: int) -> Filter:
    if isinstance(value, _Raw):
        value = _literals(value)
    if isinstance(value, dict) and value and all(key.isdecimal() for key in value if isinstance(key, str)):
        value = list(value.values())  # filter[$or][0][name]=x
    if name == "$not":
        part = _tree(value[0] if isinstance(value, list) and len(value) == 1 else value, path, depth + 1)
        if part is None:
            raise BadRequest("Invalid filter: '$not' has nothing to deny")
        return Not(part)
    each = [{key: held} for key, held in value.items()] if isinstance(value, dict) else value
    if not isinstance(each, list):
        raise BadRequest(f"Invalid filter: '{name}' needs a list of conditions, not {_shown(value)}")
    parts = [part for item in each if (part := _tree(item, path, depth + 1)) is not None]
    if not parts:
        raise BadRequest(f"Invalid filter: '{name}' needs a list of at least one condition")
    return AllOf(tuple(parts)) if name == "$and" else AnyOf(tuple(parts))


def _test(path: tuple[str, ...], op: Op, value: Any) -> Filter:
    field = dotted(path)
    if isinstance(value, _Raw):
        value = _read(value, many=op in (Op.IN, Op.NIN))
    elif op in (Op.IN, Op.NIN) and isinstance(value, str):
        value = value.split(",")
    return tested(field, op, value)


def _read(value: _Raw, many: bool = False) -> Any:
    """A value behind brackets: "" is null; a list or an object is JSON; with `many`, commas separate."""
    if value.startswith(("{", "[")):
        return _literal(value)
    if many:
        return [str(each) or None for each in value.split(",")]
    return str(value) or None


def _literals(value: _Raw) -> Any:
    """What stands behind `filter[$and]`: a list or an object, or objects with commas between them."""
    if value.startswith("{"):
        found = _literal(f"[{value}]", value)
        return found[0] if len(found) == 1 else found
    return _literal(value)


def _literal(text: str, shown: str | None = None) -> Any:
    """JSON, or the Python that the published client writes for lists of objects."""
    if _depth(text) <= 2 * DEEPEST:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            pass
    raise BadRequest(
        f"Invalid filter value: {_shown(shown or text)}. Array and object values must be valid JSON, "
        f"nested at most {DEEPEST} levels"
    )


def _depth(text: str) -> int:
    depth = deepest = 0
    for sign in text:
        if sign in "[{(":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "]})":
            depth -= 1
    return deepest


def _shown(value: Any) -> str:
    text = f"'{value}'" if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()  # JSON may spell half a surrogate pair
    return text if len(text) <= 200 else f"{text[:200]}..."
