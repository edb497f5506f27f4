"""A job as a file: YAML or JSON, the spec itself or the spec with a name around it, and `--set` on top."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import Invalid, NotBuilt

BACKENDS = ("automodel",)
_ENVELOPE = frozenset({"backend", "name", "description", "spec"})


@dataclass(frozen=True)
class JobFile:
    """What a file says about a job."""

    spec: dict[str, Any]
    name: str | None = None
    description: str | None = None


def read(path: str, assignments: Iterable[str] = ()) -> JobFile:
    """The job in the file at `path` (`-` is the standard input), with each `path=value` set in its spec.

    Raises Invalid for what cannot be read, NotBuilt for a backend that there is not.
    """
    where = "standard input" if path == "-" else path
    document = parse(sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8"), where)
    backend = document.get("backend", BACKENDS[0])
    if backend not in BACKENDS:
        raise NotBuilt(f"{where}: backend '{backend}' is not built yet; this version has {', '.join(BACKENDS)}")
    if "spec" in document:
        if stray := document.keys() - _ENVELOPE:
            raise Invalid(f"{where}: {', '.join(sorted(stray))} must stand inside of `spec`, where `spec` is given")
        spec, name, description = document["spec"], document.get("name"), document.get("description")
        if not isinstance(spec, dict):
            raise Invalid(f"{where}: `spec` must be a mapping, as in `spec: {{model: ..., dataset: ...}}`")
    else:
        spec, name, description = {key: value for key, value in document.items() if key != "backend"}, None, None
    for assignment in assignments:
        assign(spec, assignment)
    return JobFile(spec, name, description)


def parse(text: str, where: str) -> dict[str, Any]:
    """The mapping that `text` holds. JSON is almost YAML: tabs are where they part."""
    import yaml

    try:
        document = yaml.safe_load(text.replace("\t", " ") if text.lstrip().startswith("{") else text)
    except yaml.YAMLError as error:
        raise Invalid(f"{where} is neither YAML nor JSON: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise Invalid(f"{where} must hold a mapping with model, dataset and training; it holds {_kind(document)}")
    return document


def assign(spec: dict[str, Any], assignment: str) -> None:
    """Set `training.lora.rank=64` in `spec`; the value is read as YAML, and what is missing on the way is made."""
    path, equals, text = assignment.partition("=")
    keys = path.strip().removeprefix("spec.").split(".")
    if not equals or not all(keys):
        raise Invalid(f"--set {assignment}: write path=value, as in --set training.lora.rank=64")
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise Invalid(f"--set {assignment}: the value is not YAML; put it in quotes") from None
    place = spec
    for depth, key in enumerate(keys[:-1], start=1):
        inner = place.get(key)
        if inner is None:
            inner = place[key] = {}
        if not isinstance(inner, dict):
            raise Invalid(f"--set {assignment}: {'.'.join(keys[:depth])} is {_kind(inner)}, so it has no parts to set")
        place = inner
    place[keys[-1]] = value


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return "a list" if isinstance(value, list) else f"the value {str(value)[:60]!r}"
