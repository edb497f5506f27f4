"""What a list may be narrowed by: the tree that every encoding of the filter grammar comes to. Contract 1.4.

`filter_query.py` reads the query string into it, `store/filtering.py` turns it into SQL.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunesmith.errors import BadRequest

DEEPEST = 20
"""Levels of a tree at most."""
MOST_TESTS = 200
"""Tests in a tree at most: SQLite takes an expression of a thousand levels, and `a and b and c` has three."""
MOST_VALUES = 1000
"""Values of one IN at most."""
LONGEST_VALUE = 4000
"""Characters of one value at most."""
LARGEST_NUMBER = 2**63 - 1
"""In size: what databases call an integer has 64 bits."""
_NO_TEXT = re.compile("[\\0\\ud800-\\udfff]")


class Op(StrEnum):
    """How a field is held against a value."""

    EQ = "$eq"
    LIKE = "$like"
    LT = "$lt"
    LTE = "$lte"
    GT = "$gt"
    GTE = "$gte"
    IN = "$in"
    NIN = "$nin"
    CONTAINS = "$contains"
    EXISTS = "$exists"


@dataclass(frozen=True, slots=True)
class Test:
    """One field against one value."""

    field: str
    """Dotted where it is nested, as `dotted` writes it: `custom_fields.team`."""
    op: Op
    value: Any
    """Text, number, bool or None; a list of those for IN and NIN."""


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter = Test | AllOf | AnyOf | Not


def echo(found: Filter | None) -> dict[str, Any] | None:
    """The filter as answers repeat it: `{"name": {"$eq": "ws1"}}`, `{"$or": [...]}`; None for none."""
    match found:
        case None:
            return None
        case Test(field, op, value):
            return {field: {op.value: value}}
        case AllOf(parts):
            return {"$and": [echo(part) for part in parts]}
        case AnyOf(parts):
            return {"$or": [echo(part) for part in parts]}
        case Not(part):
            return {"$not": echo(part)}


def within_bounds(found: Filter) -> Filter:
    """The filter itself; BadRequest when it is too large to be asked of a database."""
    tests, left = 0, [(found, 1)]
    while left:
        part, depth = left.pop()
        if depth > DEEPEST:
            raise BadRequest(f"Invalid filter: nested deeper than {DEEPEST} levels; ask for less at a time")
        match part:
            case Test():
                tests += 1
            case Not(inner):
                left.append((inner, depth + 1))
            case AllOf(parts) | AnyOf(parts):
                left.extend((each, depth + 1) for each in parts)
    if tests > MOST_TESTS:
        raise BadRequest(f"Invalid filter: {tests} tests, at most {MOST_TESTS} are allowed; use $in for many values")
    return found


def tested(field: str, op: Op, value: Any) -> Test:
    """The test of a field; BadRequest when the value is not one that a field can be held against."""
    if _NO_TEXT.search(field) or len(field) > LONGEST_VALUE:
        raise BadRequest(f"Invalid filter: {field[:80]!a} is not the name of a field")
    if op not in (Op.IN, Op.NIN):
        return Test(field, op, _scalar(field, value))
    values = list(value) if isinstance(value, list | tuple) else [value]
    if len(values) > MOST_VALUES:
        raise BadRequest(f"Invalid filter: {field} has {len(values)} values, at most {MOST_VALUES} are allowed")
    return Test(field, op, [_scalar(field, each) for each in values])


def _scalar(field: str, value: Any) -> Any:
    if isinstance(value, str):
        if _NO_TEXT.search(value):
            raise BadRequest(
                f"Invalid filter: the value of {field} holds NUL or half a surrogate pair, which no text has"
            )
        if len(value) > LONGEST_VALUE:
            raise BadRequest(f"Invalid filter: the value of {field} is longer than {LONGEST_VALUE} characters")
        return value
    match value:
        case None | bool():
            return value
        case int() if abs(value) <= LARGEST_NUMBER:
            return value
        case float() if math.isfinite(value):
            return value
    raise BadRequest(
        f"Invalid filter: the value of {field} must be text, a finite number of 64 bits, true, false or null"
    )


_STEP = re.compile(r'(?:^|\.)([^.\[\]"\\\s]+)|\[("(?:[^"\\]|\\.)*")\]', re.DOTALL)


def dotted(steps: Sequence[str]) -> str:
    """A path to a field: `custom_fields.team`, and `custom_fields["a.b"]` where a step is not a plain word."""
    first, *rest = steps
    return first + "".join(
        f".{step}" if _STEP.fullmatch(f".{step}") else f"[{json.dumps(step, ensure_ascii=False)}]" for step in rest
    )


def steps_of(field: str) -> tuple[str, ...]:
    """The path that `dotted` wrote; BadRequest for text that it never writes."""
    steps: list[str] = []
    end = 0
    while end < len(field):
        found = _STEP.match(field, end)
        if found is None or (found.group(1) is None and not steps):
            break
        try:
            steps.append(found.group(1) or json.loads(found.group(2), strict=False))
        except ValueError:
            break
        end = found.end()
    if not steps or end < len(field):
        raise BadRequest(
            f'Invalid filter: {field[:80]!r} is not a field; write name, custom_fields.key or field["key"]'
        )
    return tuple(steps)
