"""What SQLite and PostgreSQL spell differently: looking into JSON columns, and text without regard to case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Float, String, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

ESCAPE = "/"


class _InJson(FunctionElement[Any]):
    """Something at a path in a JSON column; the clauses are the column, the path as SQLite has it, an extra, the keys.

    SQLite cannot escape quotes in a path: keys must hold none.
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], keys: Sequence[str], extra: str = "") -> None:
        path = "$" + "".join(f'."{key}"' for key in keys)
        super().__init__(column, literal(path, String), literal(extra, String), *(literal(key, String) for key in keys))


class JsonText(_InJson):
    """The value as text, `true` and `false` as JSON writes them; NULL where there is none, and for a JSON null."""

    inherit_cache = True
    type = String()
    name = "json_text"


class JsonNumber(_InJson):
    """The value if it is a number, else NULL."""

    inherit_cache = True
    type = Float()
    name = "json_number"


class JsonHas(_InJson):
    """Whether there is a list with this element; elements are compared as text."""

    inherit_cache = True
    type = Boolean()
    name = "json_has"


class LikeText(FunctionElement[bool]):
    """Whether a text holds another; ASCII letters match in both cases."""

    inherit_cache = True
    type = Boolean()
    name = "like_text"

    def __init__(self, field: ColumnElement[Any], part: str) -> None:
        for sign in (ESCAPE, "%", "_"):
            part = part.replace(sign, ESCAPE + sign)
        super().__init__(field, literal(f"%{part}%", String))


def _clauses(element: FunctionElement[Any], compiler: SQLCompiler, **kw: Any) -> list[str]:
    """Each clause as SQL, made only where it is used: a bound value that is rendered must stand in the statement."""
    return [compiler.process(clause, **kw) for clause in element.clauses]


@compiles(LikeText, "sqlite")
def _like_sqlite(element: LikeText, compiler: SQLCompiler, **kw: Any) -> str:
    field, pattern = _clauses(element, compiler, **kw)
    return f"({field} LIKE {pattern} ESCAPE '{ESCAPE}')"


@compiles(LikeText, "postgresql")
def _like_postgresql(element: LikeText, compiler: SQLCompiler, **kw: Any) -> str:
    field, pattern = _clauses(element, compiler, **kw)
    return f"({field} ILIKE {pattern} ESCAPE '{ESCAPE}')"


def _at_sqlite(element: _InJson, compiler: SQLCompiler, **kw: Any) -> str:
    column, path, *_ = element.clauses
    return f"{compiler.process(column, **kw)}, {compiler.process(path, **kw)}"


def _at_postgresql(element: _InJson, compiler: SQLCompiler, **kw: Any) -> str:
    column, _path, _extra, *keys = element.clauses
    return ", ".join(compiler.process(clause, **kw) for clause in (column, *keys))


def _extra(element: _InJson, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(list(element.clauses)[2], **kw)


@compiles(JsonText, "sqlite")
def _text_sqlite(element: JsonText, compiler: SQLCompiler, **kw: Any) -> str:
    kind = f"json_type({_at_sqlite(element, compiler, **kw)})"
    return (
        f"(CASE {kind} WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' "
        f"ELSE CAST(json_extract({_at_sqlite(element, compiler, **kw)}) AS TEXT) END)"
    )


@compiles(JsonText, "postgresql")
def _text_postgresql(element: JsonText, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_extract_path_text({_at_postgresql(element, compiler, **kw)})"


@compiles(JsonNumber, "sqlite")
def _number_sqlite(element: JsonNumber, compiler: SQLCompiler, **kw: Any) -> str:
    kind = f"json_type({_at_sqlite(element, compiler, **kw)})"
    return f"(CASE WHEN {kind} IN ('integer', 'real') THEN json_extract({_at_sqlite(element, compiler, **kw)}) END)"


@compiles(JsonNumber, "postgresql")
def _number_postgresql(element: JsonNumber, compiler: SQLCompiler, **kw: Any) -> str:
    kind = f"json_typeof(json_extract_path({_at_postgresql(element, compiler, **kw)}))"
    value = f"json_extract_path_text({_at_postgresql(element, compiler, **kw)})"
    return f"(CASE WHEN {kind} = 'number' THEN CAST({value} AS DOUBLE PRECISION) END)"


@compiles(JsonHas, "sqlite")
def _has_sqlite(element: JsonHas, compiler: SQLCompiler, **kw: Any) -> str:
    kind = f"json_type({_at_sqlite(element, compiler, **kw)})"
    each = f"json_each({_at_sqlite(element, compiler, **kw)})"
    value = "CASE type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE CAST(value AS TEXT) END"
    wanted = _extra(element, compiler, **kw)
    return f"(CASE WHEN {kind} = 'array' THEN EXISTS (SELECT 1 FROM {each} WHERE {value} = {wanted}) ELSE 0 END)"  # noqa: S608


@compiles(JsonHas, "postgresql")
def _has_postgresql(element: JsonHas, compiler: SQLCompiler, **kw: Any) -> str:
    column, _path, _wanted, *keys = element.clauses
    at = f"json_extract_path({_at_postgresql(element, compiler, **kw)})" if keys else compiler.process(column, **kw)
    again = f"json_extract_path({_at_postgresql(element, compiler, **kw)})" if keys else compiler.process(column, **kw)
    wanted = _extra(element, compiler, **kw)
    elements = f"SELECT 1 FROM json_array_elements_text({again}) AS element WHERE element = {wanted}"  # noqa: S608
    return f"(CASE WHEN json_typeof({at}) = 'array' THEN EXISTS ({elements}) ELSE false END)"
