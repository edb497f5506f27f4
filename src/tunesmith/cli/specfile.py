"""A job as a file: YAML or JSON, the spec itself or the spec with a name around it, and `--set` on top."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import Invalid

BACKENDS = ("automodel", "unsloth", "rl")
SHORTHAND = "shorthand"
"""Not a backend: the spec that is one for all of them, and goes to the one that has what it asks for."""

_BESIDE = ("name", "description", "project", "ownership", "custom_fields")
"""What may stand beside `spec`; the first three also beside the fields of a spec that nothing stands around."""
_ENVELOPE = frozenset({"backend", "spec", *_BESIDE})


@dataclass(frozen=True)
class JobFile:
    """What a file says about a job."""

    spec: dict[str, Any]
    backend: str = BACKENDS[0]
    """One of BACKENDS, or SHORTHAND."""
    name: str | None = None
    description: str | None = None
    project: str | None = None
    ownership: dict[str, Any] | None = None
    custom_fields: dict[str, Any] | None = None


def read(path: str, assignments: Iterable[str] = (), backend: str | None = None) -> JobFile:
    """The job in the file at `path` (`-` is the standard input), with each `path=value` set in its spec.

    `backend` is what the command line says; else it is the file's `backend:`, else automodel, or the shorthand where
    the spec is written in that. Invalid for what cannot be read, and for a spec that has the shape of another backend.
    """
    where = "standard input" if path == "-" else path
    document = parse(sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8"), where)
    said = _said(document, where, backend)
    if "spec" in document:
        if stray := document.keys() - _ENVELOPE:
            raise Invalid(f"{where}: {', '.join(sorted(stray))} must stand inside of `spec`, where `spec` is given")
        spec, beside = document["spec"], {key: document.get(key) for key in _BESIDE}
        if not isinstance(spec, dict):
            raise Invalid(f"{where}: `spec` must be a mapping, as in `spec: {{model: ..., dataset: ...}}`")
    else:
        beside = {key: document.get(key) for key in _BESIDE[:3]}
        spec = {key: value for key, value in document.items() if key not in ("backend", *_BESIDE[:3])}
    for assignment in assignments:
        assign(spec, assignment)
    return JobFile(spec, said or _spoken(spec, where), **beside)


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


def _said(document: dict[str, Any], where: str, asked: str | None) -> str | None:
    """The backend that the command line or the file names."""
    named = document.get("backend")
    if named is not None and named not in BACKENDS:
        raise Invalid(f"{where}: backend '{str(named)[:40]}' is none of {', '.join(BACKENDS[:-1])} and {BACKENDS[-1]}")
    if asked and named and asked != named:
        raise Invalid(f"--backend {asked}: {where} says `backend: {named}`; change the one or the other")
    return asked or named


def _spoken(spec: dict[str, Any], where: str) -> str:
    """Which grammar a spec is written in when nobody says so; Invalid if it fits one that must be asked for."""
    from tunesmith.spec.hints import speakers

    fits = speakers(spec)
    if BACKENDS[0] in fits:
        return BACKENDS[0]
    training = spec.get("training")
    method = training.get("type") if isinstance(training, dict) else None
    if method in ("sft", "distillation") or (isinstance(training, dict) and "peft" in training):
        return SHORTHAND
    if method is None and "rl" in fits:
        fits.remove("rl")  # it cannot do without
    if fits:
        raise Invalid(
            f"{where} is written for the {' or the '.join(fits)} backend, and jobs go to {BACKENDS[0]} unless they say "
            f"otherwise: add `backend: {fits[0]}` to it, or --backend {fits[0]} to the command"
        )
    return BACKENDS[0]


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return "a list" if isinstance(value, list) else f"the value {str(value)[:60]!r}"
