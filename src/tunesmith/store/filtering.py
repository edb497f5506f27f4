"""A filter's tree as a condition on rows. What may be filtered by stands with each repository."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Float,
    Integer,
    String,
    and_,
    cast,
    false,
    func,
    literal,
    not_,
    or_,
    true,
)

from tunesmith.api.filters import LARGEST_NUMBER, AllOf, AnyOf, Filter, Not, Op, Test, steps_of
from tunesmith.errors import BadRequest
from tunesmith.store.json_sql import JsonHas, JsonNumber, JsonText, LikeText

Field = ColumnElement[Any] | Callable[[Op, Any], ColumnElement[bool]]
"""A column, or a function for what is not one: it is given operator and value as they came."""

ORDERS: Mapping[Op, Callable[[Any, Any], Any]] = {
    Op.EQ: operator.eq,
    Op.LT: operator.lt,
    Op.LTE: operator.le,
    Op.GT: operator.gt,
    Op.GTE: operator.ge,
}


def condition(found: Filter, fields: Mapping[str, Field]) -> ColumnElement[bool]:
    """The SQL condition; BadRequest names a field that is not among `fields`, or a value that cannot be meant.

    A row without the value (null) passes no test but `$eq: null`, `$exists: false` and `$nin`, and every `$not`.
    """
    match found:
        case AllOf(parts):
            return and_(true(), *(condition(part, fields) for part in parts))
        case AnyOf(parts):
            return or_(false(), *(condition(part, fields) for part in parts))
        case Not(part):
            return not_(func.coalesce(condition(part, fields), false()))
        case Test(name, op, value):
            return _test(name, op, value, fields)


def truth(name: str, value: Any) -> bool:
    """A boolean that may have come as text."""
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "1", "false", "0"):
        return str(value).lower() in ("true", "1")
    raise BadRequest(f"filter: {name} must be true or false, not '{value}'")


def _test(name: str, op: Op, value: Any, fields: Mapping[str, Field]) -> ColumnElement[bool]:
    field = fields.get(name)
    if field is None:
        return _inside(name, op, value, fields)
    if not isinstance(field, ColumnElement):
        return field(op, value)
    if isinstance(field.type, JSON):
        return _whole_json(field, name, op, value)
    if op in (Op.LIKE, Op.CONTAINS):
        if isinstance(field.type, Boolean):
            raise BadRequest(f"filter: {name} is true or false and has no text to look into; use $eq")
        return LikeText(field if isinstance(field.type, String) else cast(field, String), _text(name, op, value))
    return _compared(field, name, op, value, lambda each: _value(field, name, each))


def _inside(name: str, op: Op, value: Any, fields: Mapping[str, Field]) -> ColumnElement[bool]:
    """What lies at a path inside a JSON column: numbers are compared as numbers, all else as text."""
    top, *keys = steps_of(name)
    column = fields.get(top)
    if not keys or not isinstance(column, ColumnElement) or not isinstance(column.type, JSON):
        raise BadRequest(f"Unknown filter field '{name[:80]}'. Valid fields: {sorted(fields)}")
    if any('"' in key or "\\" in key or not key.isprintable() for key in keys):
        raise BadRequest(
            f"filter: {name[:80]} cannot be looked up: a key with quotes, backslashes or control characters"
        )
    text = JsonText(column, keys)
    if op is Op.LIKE:
        return LikeText(text, _text(name, op, value))
    if op is Op.CONTAINS:
        wanted = _text(name, op, value)
        return or_(func.coalesce(JsonHas(column, keys, wanted), false()), LikeText(text, wanted))
    if op in ORDERS and (number := _number(value, from_text=op is not Op.EQ)) is not None:
        return _boolean(ORDERS[op](JsonNumber(column, keys), literal(float(number), Float)))
    return _compared(text, name, op, value, _plain)


def _whole_json(column: ColumnElement[Any], name: str, op: Op, value: Any) -> ColumnElement[bool]:
    if op is Op.EXISTS:
        return _there(column, name, value)
    if op is Op.EQ and value is None:
        return column.is_(None)
    if op is Op.CONTAINS:
        return JsonHas(column, [], _text(name, op, value))
    if op is Op.LIKE:
        return LikeText(cast(column, String), _text(name, op, value))
    raise BadRequest(f"filter: {name} is an object or a list; name a key in it, as in {name}.key, or use $contains")


def _compared(
    field: ColumnElement[Any], name: str, op: Op, value: Any, meant: Callable[[Any], Any]
) -> ColumnElement[bool]:
    """A value in SQL against one, many or none; `meant` turns what came into what the field holds."""
    if op is Op.EXISTS:
        return _there(field, name, value)
    if op in (Op.IN, Op.NIN):
        return _among(field, op, [None if each is None else meant(each) for each in value])
    if value is None:
        if op is not Op.EQ:
            raise BadRequest(f"filter: {name} cannot be held against null with {op.value}; use $eq or $exists")
        return field.is_(None)
    if op is not Op.EQ and isinstance(field.type, Boolean):
        raise BadRequest(f"filter: {name} is true or false, which have no order; use $eq")
    return _boolean(ORDERS[op](field, meant(value)))


def _among(field: ColumnElement[Any], op: Op, values: list[Any]) -> ColumnElement[bool]:
    found: ColumnElement[bool] = field.in_([each for each in values if each is not None])
    if any(each is None for each in values):
        found = or_(found, field.is_(None))
    return found if op is Op.IN else not_(func.coalesce(found, false()))


def _there(field: ColumnElement[Any], name: str, value: Any) -> ColumnElement[bool]:
    return field.is_not(None) if truth(name, value) else field.is_(None)


def _boolean(found: Any) -> ColumnElement[bool]:
    assert isinstance(found, ColumnElement)
    return found


def _value(field: ColumnElement[Any], name: str, value: Any) -> Any:
    """The value as the column's type has it: a query string knows text only."""
    kind = field.type
    if isinstance(kind, Boolean):
        return truth(name, value)
    if isinstance(kind, DateTime):
        return _moment(name, value)
    if isinstance(kind, Integer | Float):
        number = _number(value, from_text=True)
        if number is None:
            raise BadRequest(f"filter: {name} must be a number, not '{value}'")
        return literal(number, BigInteger if isinstance(number, int) else Float)
    return _plain(value)


def _moment(name: str, value: Any) -> datetime:
    """Naive UTC; without an offset it is UTC already."""
    try:
        moment = datetime.fromisoformat(str(value))
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        raise BadRequest(f"filter: {name} must be a date and time as in 2026-01-31T12:00:00, not '{value}'") from None


def _number(value: Any, *, from_text: bool) -> int | float | None:
    """The number that a value is, or says; None for what is none, or none that a database holds."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        if not from_text:
            return None
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                return None
    return value if abs(value) <= LARGEST_NUMBER else None  # NaN is not, either


def _plain(value: Any) -> str:
    """As text: booleans as JSON writes them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(name: str, op: Op, value: Any) -> str:
    if value is None:
        raise BadRequest(f"filter: {name} with {op.value} needs a text to look for; use $exists to ask for null")
    return _plain(value)
