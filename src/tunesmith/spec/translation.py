"""How a door's words become a dialect's: a table with a rule a line, applied to a flattened body.

A rule is the dotted path that a value goes to, a function that gives paths and values, or `No` with the reason why the
dialect has no such field. A value of null is as if it were absent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.errors import Invalid

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class No:
    """A field without a counterpart: refused, unless it asks for what happens anyway."""

    why: str
    unless: tuple[Any, ...] = ()


Rule = str | No | Callable[[Any], Json]


@dataclass(frozen=True, slots=True)
class Translated:
    """A job as a dialect has it, not validated yet, and what the door said beside the spec."""

    backend: str
    spec: Json
    fields: dict[str, str] = field(default_factory=dict)
    """Path in the spec -> the door's field that it comes from, so that a broken rule can name what was sent."""
    workspace: str | None = None
    name: str | None = None
    description: str | None = None
    project: str | None = None
    ownership: Json | None = None
    custom_fields: Json | None = None
    model_otherwise: str | None = None
    """The model that is meant where `spec.model` does not exist."""
    shown: Json = field(default_factory=dict)
    """What the door sent, with what the door fills in."""

    def field_of(self, path: Sequence[str | int]) -> tuple[str | int, ...]:
        """Where a value at `path` of the spec stands in what the door sent; `path` under `spec` where nobody can tell.

        A section stands where all of its fields do: `parallelism` in `spec.training.parallelism`.
        """
        steps = tuple(step for step in path if step not in VARIANTS)
        for length in range(len(steps), 0, -1):
            if found := self.fields.get(".".join(map(str, steps[:length]))):
                return (*found.split("."), *steps[length:])
        below = ".".join(map(str, steps)) + "."
        inside = [found.split(".") for path, found in self.fields.items() if path.startswith(below)]
        return tuple(_shared(inside)) if inside else ("spec", *steps)

    def reworded(self, message: str) -> str:
        """A message about the spec with the door's fields in the place of the spec's."""

        def swap(found: re.Match[str]) -> str:
            path = found[0].removeprefix("spec.")
            if "." not in found[0]:  # a word by itself is a word
                return found[0]
            surely = path != found[0]
            told = ".".join(map(str, self.field_of(path.split(".")))) if surely else self.fields.get(path)
            return told or found[0]

        return _PATH.sub(swap, message)


VARIANTS = ("dpo", "grpo")
"""What pydantic puts into the path of a value that can have several shapes."""
_PATH = re.compile(r"(?<![\w./'\-])[a-z_]\w*(?:\.[a-z_]\w*)*")


def flat(body: Any, sections: Collection[str], where: str = "") -> Json:
    """Dotted path -> value of all that is not null; only what `sections` names is looked into."""
    return dict(_leaves(body, sections, where, ""))


def apply(
    rules: Mapping[str, Rule], values: Mapping[str, Any], where: str, backend: str
) -> tuple[Json, dict[str, str]]:
    """The spec that `values` make by `rules`, and where each of its paths comes from, or would come from.

    `where` stands in front of a field in messages. Invalid names a field that the door, or the dialect, does not have.
    """
    spec: Json = {}
    fields = {rule: f"{where}{path}" for path, rule in rules.items() if isinstance(rule, str)}
    for path, value in values.items():
        rule = rules.get(path)
        if rule is None:
            raise Invalid(f"{where}{path}: there is no such field; see the documentation of this call")
        if isinstance(rule, No):
            if not any(value == harmless for harmless in rule.unless):
                raise Invalid(f"{where}{path}: {shown(value)} has no counterpart in the {backend} backend: {rule.why}")
            continue
        try:
            made = {rule: value} if isinstance(rule, str) else rule(value)
        except Invalid as error:
            raise Invalid(f"{where}{path}: {error.message}") from None
        for target, each in made.items():
            put(spec, target, each)
            fields[target] = f"{where}{path}"
    return spec, fields


def put(spec: Json, path: str, value: Any) -> None:
    """Set the value at a dotted path, and make what is missing on the way."""
    *way, last = path.split(".")
    for name in way:
        spec = spec.setdefault(name, {})
    spec[last] = value


def nested(values: Mapping[str, Any]) -> Json:
    """Dotted paths and values as the object that they came from."""
    made: Json = {}
    for path, value in values.items():
        put(made, path, value)
    return made


def _shared(paths: Sequence[Sequence[str]]) -> Iterator[str]:
    """What all of them begin with."""
    for steps in zip(*paths, strict=False):
        if len(set(steps)) > 1:
            return
        yield steps[0]


def one_of(values: Mapping[Any, Json]) -> Callable[[Any], Json]:
    """A rule that knows these values only."""

    def rule(value: Any) -> Json:
        for known, made in values.items():
            if value == known:
                return made
        raise Invalid(f"{shown(value)} must be {' or '.join(str(known) for known in values)}")

    return rule


def shown(value: Any) -> str:
    """A value as a message can bear it."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _leaves(body: Any, sections: Collection[str], where: str, prefix: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(body, dict):
        raise Invalid(f"{(where + prefix).rstrip('.') or 'body'}: must be an object, not {shown(body)}")
    for key, value in body.items():
        path = f"{prefix}{key}"
        if value is None:
            continue
        if path in sections:
            yield from _leaves(value, sections, where, f"{path}.")
        else:
            yield path, value
