"""The API's page for people, `/docs`: made here from OpenAPI, so that it needs no other machine and no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse


class Markup(str):
    """HTML already."""

    __slots__ = ()


router = APIRouter(include_in_schema=False)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
summary { cursor: pointer; padding: .2rem 0; } code { font-size: .95em; } b.m { display: inline-block; width: 4.5em; }
table { border-collapse: collapse; margin: .5rem 0 1rem; } td { padding: .15rem 1rem .15rem 0; vertical-align: top; }
details { margin-left: 1rem; } :target { outline: 2px solid; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd; } a { color: #8bf; } }
"""


@router.get("/docs", response_class=HTMLResponse)
async def manual(request: Request) -> HTMLResponse:
    """Every operation and every shape."""
    described = request.app.openapi()
    by_tag: dict[str, list[str]] = {}
    for path, item in described["paths"].items():
        for method, operation in item.items():
            by_tag.setdefault(operation.get("tags", ["other"])[0], []).append(_operation(method, path, operation))
    title = f"{described['info']['title']} {described['info']['version']}"
    parts = [f"<h1>{escape(title)}</h1><p>{escape(described['info'].get('summary', ''))}</p>"]
    parts.append('<p>The same for machines: <a href="openapi.json">openapi.json</a></p>')
    parts += [f"<h2>{escape(tag)}</h2>{''.join(operations)}" for tag, operations in sorted(by_tag.items())]
    shapes = sorted(described["components"]["schemas"].items())
    parts += ["<h2>Shapes</h2>", *(_shape(name, schema) for name, schema in shapes)]
    head = f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
    return HTMLResponse(head + "\n".join(parts))


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [
        (each["in"], each["name"], _type(each["schema"]), each.get("description", ""))
        for each in operation.get("parameters", [])
    ]
    if body := operation.get("requestBody"):
        rows += [("body", kind, _type(of.get("schema", {})), "") for kind, of in body["content"].items()]
    for status, answer in operation["responses"].items():
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        rows.append(("answer", status, _type(schema) if schema else "", answer.get("description", "")))
    words = escape(operation.get("description") or operation.get("summary", ""))
    signature = f"<b class=m>{method.upper()}</b> <code>{escape(path)}</code>"
    return f"<details><summary>{signature}</summary><p>{words}</p>{_table(rows)}</details>"


def _shape(name: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = [
        (field + ("*" if field in required else ""), _type(of), of.get("description", ""))
        for field, of in schema.get("properties", {}).items()
    ]
    about = escape(schema.get("description", "")) + (" " + _type(schema) if "enum" in schema else "")
    return f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{about}</p>{_table(rows)}'


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of a table; what is not `Markup` is escaped."""
    cells = ("".join(f"<td>{cell if isinstance(cell, Markup) else escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>" if rows else ""


def _type(schema: dict[str, Any]) -> Markup:
    """The type in words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return Markup(f'<a href="#{name}">{name}</a>')
    for many in ("anyOf", "oneOf", "allOf"):
        if many in schema:
            return Markup(" or ".join(dict.fromkeys(_type(each) for each in schema[many])))
    if "enum" in schema or "const" in schema:
        return Markup(escape(" | ".join(str(each) for each in schema.get("enum", [schema.get("const")]))))
    if schema.get("type") == "array":
        return Markup(f"list of {_type(schema.get('items', {}))}")
    return Markup(escape(str(schema.get("format", schema.get("type", "anything")))))
