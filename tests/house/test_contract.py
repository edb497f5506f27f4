"""Our OpenAPI covers the contract: every operation, query parameter, request field and answer field of it.

`contract.json` holds the contract's, `not_built.txt` what is missing yet: a line each, and it may only shrink.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith.server.app import create_app
from tunesmith.settings import Settings

HERE = Path(__file__).parent
DEPTH = 3
METHODS = ("get", "post", "put", "patch", "delete", "head")


def test_every_operation_and_field_of_the_contract_is_built_or_listed(tmp_path: Path) -> None:
    ours = operations(create_app(Settings(data_dir=tmp_path)).openapi())
    missing = set(gaps(json.loads((HERE / "contract.json").read_text()), ours))
    listed = {line for line in (HERE / "not_built.txt").read_text().splitlines() if line and not line.startswith("#")}
    assert missing - listed == set(), "missing from our API: build it"
    assert listed - missing == set(), "built by now: take these lines out of not_built.txt"


def gaps(contract: Mapping[str, Mapping[str, Any]], ours: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What the contract has and we do not, a line each."""
    by_shape = {shape(operation): facts for operation, facts in ours.items()}
    for operation, wanted in contract.items():
        found = by_shape.get(shape(operation))
        if found is None:
            yield operation
            continue
        if "status" in wanted and wanted["status"] not in found["status"]:
            yield f"{operation} answers {wanted['status']}"
        for part in ("query", "request", "answer"):
            for field in wanted.get(part, "").split():
                if field not in found.get(part, ()):
                    yield f"{operation} {part} {field}"


def shape(operation: str) -> str:
    """The operation without the names of its path's parameters; what a hub has several kinds of, we have as one."""
    operation = operation.replace("/hf/api/models/", "/hf/api/{kind}/")
    return re.sub(r"\{[^}]*\}", "{}", operation)


def operations(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Status, query parameters and dotted fields of request and answer, by `METHOD path`."""
    found: dict[str, dict[str, Any]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method not in METHODS:
                continue
            facts: dict[str, Any] = {
                "status": {int(code) for code in operation["responses"] if code.startswith("2")},
                "query": {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"},
            }
            if body := schema(operation.get("requestBody", {})):
                facts["request"] = set(fields(body, document))
            for code, answer in operation["responses"].items():
                if code.startswith("2"):
                    facts["answer"] = set(fields(schema(answer), document))
            found[f"{method.upper()} {path}"] = facts
    return found


def schema(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON schema of a body, or nothing."""
    found: Mapping[str, Any] = holder.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def fields(
    of: Mapping[str, Any], document: Mapping[str, Any], depth: int = DEPTH, seen: tuple[str, ...] = ()
) -> Iterator[str]:
    """Dotted names of a schema's properties, `[]` where a list is entered."""
    if "$ref" in of:
        name = of["$ref"].split("/")[-1]
        if name not in seen:
            yield from fields(document["components"]["schemas"][name], document, depth, (*seen, name))
        return
    for kind in ("anyOf", "oneOf", "allOf"):
        for option in of.get(kind, []):
            yield from fields(option, document, depth, seen)
    for inner in fields(of["items"], document, depth, seen) if "items" in of else ():
        yield f"[]{inner}" if inner.startswith("[]") else f"[].{inner}"
    for name, property_ in of.get("properties", {}).items():
        yield name
        if depth > 1:
            for inner in fields(property_, document, depth - 1, seen):
                yield name + (inner if inner.startswith("[]") else f".{inner}")
