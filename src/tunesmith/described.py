"""The base of every shape whose fields are described by the string under each.

The sources are read when a schema is asked for. pydantic's `use_attribute_docstrings` reads them whenever a class is
made, which was 0.5 s of a server's start and 0.1 s of each engine's.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import AliasChoices, BaseModel, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema


class Described(BaseModel):
    """A model whose JSON schema says what the string under each field says."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /) -> dict[str, Any]:
        """pydantic's schema, with a description where there is none, unless a property's own shape says the same."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        words = descriptions(cls)
        for name, field in cls.model_fields.items():
            key = next((key for key in _keys(name, field) if key in properties), None)
            if key and name in words and handler.resolve_ref_schema(properties[key]).get("description") != words[name]:
                properties[key].setdefault("description", words[name])
        return schema


@cache
def descriptions(model: type[BaseModel]) -> Mapping[str, str]:
    """What stands under each field of a model, by the field's name; fields without a description are left out."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        declared = inspect.get_annotations(each)
        said = _module_descriptions(each.__module__).get(each.__qualname__, {}) if declared else {}
        for name in declared:
            found.pop(name, None)
            if words := said.get(name):
                found[name] = words
    return found


@cache
def _module_descriptions(module: str) -> dict[str, dict[str, str]]:
    """By qualified name of a class in a module: the string under each attribute. Nothing where the source is gone."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):
        return {}
    return dict(_classes(ast.parse(source), ""))


def _classes(node: ast.AST, prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, ast.ClassDef):
            yield f"{prefix}{child.name}", dict(_attributes(child))
            inner = f"{prefix}{child.name}."
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{prefix}{child.name}.<locals>."
        yield from _classes(child, inner)


def _attributes(made: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in pairwise(made.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            said = below.value
            if isinstance(said, ast.Constant) and isinstance(said.value, str):
                yield field.target.id, inspect.cleandoc(said.value)


def _keys(name: str, field: FieldInfo) -> Iterator[str]:
    """The names under which a field may stand in a schema."""
    for alias in (field.alias, field.serialization_alias, field.validation_alias, name):
        if isinstance(alias, str):
            yield alias
        elif isinstance(alias, AliasChoices):
            yield from (choice for choice in alias.choices if isinstance(choice, str))
