"""Writes docs/reference: the API from our OpenAPI, the command line from typer, the settings from their class.

`--check` compares instead, and names the pages that are out of date.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel

from tunesmith import settings
from tunesmith.cli.main import app as command_line
from tunesmith.control.submission import OF_CONTAINERS
from tunesmith.described import descriptions
from tunesmith.handoff.capabilities import CAPABILITIES, TRAINED_FAMILIES, Capability
from tunesmith.server.app import create_app
from tunesmith.settings import Settings, variable_of
from tunesmith.spec.automodel import AutomodelJobInput
from tunesmith.spec.base import Spec
from tunesmith.spec.unsloth import UnslothJobInput

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- made by `make docs`; edit the code instead -->"
METHODS = ("get", "head", "post", "put", "patch", "delete")


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` finds a page that is not as it would be written."""
    stale = []
    pages = {"api.md": api(), "cli.md": cli(), "settings.md": settings_page(), "training.md": training()}
    for name, text in pages.items():
        page = FOLDER / name
        if page.exists() and page.read_text() == text:
            continue
        stale.append(f"docs/reference/{name}")
        if "--check" not in arguments:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text)
    if "--check" in arguments and stale:
        print(f"out of date, run `make docs`: {', '.join(stale)}")
        return 1
    print(f"{len(stale)} pages written" if stale else "docs/reference is up to date")
    return 0


# -- the API ---------------------------------------------------------------------------------------------------------


def api() -> str:
    """Every operation by tag, then every shape that a request or an answer has."""
    with tempfile.TemporaryDirectory() as folder:
        described = create_app(Settings(data_dir=Path(folder))).openapi()
    lines = ["# API", "", NOTE, "", "The same for machines: `/openapi.json` of a server that runs.", ""]
    lines += ['Every route may refuse with `{"detail": ...}`: 400, 403, 404, 409, 413, 415, 422, 502, 503, 507.', ""]
    for tag, operations in sorted(_by_tag(described).items()):
        lines += [f"## {tag}", ""]
        for method, path, operation in operations:
            lines += _operation(method, path, operation)
    lines += ["## Shapes", ""]
    for name, schema in sorted(described["components"]["schemas"].items()):
        lines += _shape(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def _by_tag(described: dict[str, Any]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    found: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, item in described["paths"].items():
        for method in METHODS:
            if method in item:
                found.setdefault(item[method].get("tags", ["other"])[0], []).append((method, path, item[method]))
    return found


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`"
    yield ""
    yield from [_joined(operation.get("description", operation.get("summary", ""))), ""]
    query = [parameter for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
    if query:
        yield "Query: " + ", ".join(f"`{each['name']}`{_default(each['schema'])}" for each in query) + "."
        yield ""
    if body := operation.get("requestBody"):
        kinds = [f"{_type(of.get('schema', {}))} as {kind}" for kind, of in body["content"].items()]
        yield f"Body: {' or '.join(kinds)}."
        yield ""
    answers = [f"{status} {_content(of)}".strip() for status, of in operation["responses"].items() if status < "400"]
    yield f"Answers: {', '.join(answers)}."
    yield ""


def _content(response: dict[str, Any]) -> str:
    schema = response.get("content", {}).get("application/json", {}).get("schema")
    return _type(schema) if schema else ""


def _shape(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    if text := schema.get("description"):
        yield from [_joined(text), ""]
    if values := schema.get("enum"):
        yield from [f"One of {', '.join(f'`{value}`' for value in values)}.", ""]
    if fields := schema.get("properties"):
        required = schema.get("required", [])
        yield "| field | type | |"
        yield "|---|---|---|"
        for field, of in fields.items():
            star = "" if field not in required else "*"
            words = _joined(of.get("description", "")).replace("|", "\\|")
            yield f"| `{field}`{star} | {_type(of)}{_default(of)} | {words} |"
        yield ""


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for many in ("anyOf", "oneOf", "allOf"):
        if many in schema:
            return " or ".join(dict.fromkeys(_type(each) for each in schema[many]))
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("format", schema.get("type", "anything")))


def _default(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    return "" if default in (None, "", [], {}) else f" = `{default}`"


# -- what can be trained ---------------------------------------------------------------------------------------------

CONTAINERS_REFUSED = "tests/control/test_job_line.py"
BUILT = {"automodel": AutomodelJobInput, "unsloth": UnslothJobInput}


def training() -> str:
    """The families, then every field of the dialects that train, with the values that are built."""
    lines = ["# Training", "", NOTE, "", 'What the engine trains today; all else is refused as "not built yet".', ""]
    lines += ["## Families", "", "By LoRA, merged LoRA and with all weights.", ""]
    lines += ["| `model_type` | rows share a sequence | the test that trains it |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {'yes' if family.packs else 'no, packing is off with a warning'} | `{family.proof}` |"
        for name, family in sorted(TRAINED_FAMILIES.items())
    ]
    for dialect, spec in BUILT.items():
        rows = {row.field: row for row in CAPABILITIES if row.dialect == dialect}
        lines += [
            "",
            f"## {dialect}",
            "",
            "What is built is all that the rules between fields allow, unless the last column says something else.",
            "",
            "| field | default | | values that are built, with the test that shows it |",
            "|---|---|---|---|",
        ]
        lines += _fields(spec, "", rows)
    return "\n".join(lines).rstrip() + "\n"


def _fields(spec: type[BaseModel], path: str, rows: dict[str, Capability]) -> Iterator[str]:
    for name, field in spec.model_fields.items():
        below = _spec_below(field.annotation)
        if below:
            yield from _fields(below, f"{path}{name}.", rows)
            continue
        row, words = rows.get(f"{path}{name}"), _joined(descriptions(spec).get(name, "")).replace("|", "\\|")
        built = f"{_values(row)} (`{row.proof}`)" if row else _of_what_is_not_built(f"{path}{name}", rows)
        default = "required" if field.is_required() else f"`{_written(field.get_default(call_default_factory=True))}`"
        yield f"| `{path}{name}` | {default} | {words} | {built} |"


def _of_what_is_not_built(path: str, rows: dict[str, Capability]) -> str:
    """Of a field without a row of its own: what keeps it from having a meaning; "" = nothing does."""
    section, _, name = path.rpartition(".")
    if OF_CONTAINERS & set(path.split(".")):
        return f"none: no container is started (`{CONTAINERS_REFUSED}`)"
    if ("teacher" in name or "distillation" in name) and "distillation" not in rows["training.training_type"].values:
        return "none: distillation is not built"
    if section == "parallelism" and rows["parallelism.num_gpus_per_node"].values == (1,):
        return "what one device allows"
    return ""


def _spec_below(annotation: Any) -> type[BaseModel] | None:
    """The section that a field is, perhaps an optional one."""
    kinds = [annotation, *get_args(annotation)]
    found = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Spec)]
    return found[0] if found and str not in kinds else None


def _values(row: Capability) -> str:
    return ", ".join(f"`{_written(value)}`" for value in row.values) or "no value yet"


def _written(value: Any) -> str:
    return json.dumps(value).strip('"')


# -- the command line ------------------------------------------------------------------------------------------------


def cli() -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(command_line)
    lines = ["# Command line", "", NOTE, "", _joined(root.help or ""), ""]
    lines += _options(root)
    lines += [line for command in _commands(root, "tunesmith") for line in command]
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: Any, name: str) -> Iterator[list[str]]:
    for word, command in getattr(group, "commands", {}).items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {word}")
            continue
        arguments = [_argument(each) for each in command.params if _is_argument(each)]
        yield [
            f"## `{' '.join([name, word, *arguments])}`",
            "",
            textwrap.dedent(command.help or "").strip(),
            "",
            *_options(command),
        ]


def _argument(parameter: Any) -> str:
    shown = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return shown if parameter.required else f"[{shown}]"


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _options(command: Any) -> list[str]:
    lines = []
    for each in command.params:
        if not _is_argument(each) and not getattr(each, "hidden", False):
            names = ", ".join(f"`{name}`" for name in (*each.opts, *each.secondary_opts))
            lines.append(f"- {names}: {_joined(getattr(each, 'help', None) or '')}")
    return [*lines, ""] if lines else []


# -- settings --------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    """Every setting with its variable, default and meaning."""
    body = next(
        node
        for node in ast.parse(inspect.getsource(settings)).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    ).body
    words = {
        field.target.id: _joined(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
    lines = ["# Settings", "", NOTE, "", "Environment variables that `tunesmith up` reads. A variable with our prefix "]
    lines[-1] += "that is not one of them is named in the log."
    lines += ["", "| variable | default | |", "|---|---|---|"]
    for field in dataclasses.fields(Settings):
        default = "`~/.tunesmith`" if field.name == "data_dir" else _shown(field.default)
        lines.append(f"| `{variable_of(field.name)}` | {default} | {words[field.name]} |")
    return "\n".join(lines) + "\n"


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "`1`" if default else "`0`"
    if isinstance(default, tuple):
        return f"`{','.join(default)}`" if default else ""
    return f"`{default}`" if default != "" else ""


def _joined(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
