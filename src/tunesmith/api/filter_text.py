"""The filter grammar as text: `name~"llama" AND (created_at > "2026-01-01" OR -project:null)`. Contract 1.4.

From loose to tight: OR, AND (also where two conditions just follow each other), then `-` or NOT before one condition.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tunesmith.api.filters import DEEPEST, AllOf, AnyOf, Filter, Not, Op, dotted, tested
from tunesmith.errors import BadRequest

COMPARISONS = {":": Op.EQ, "~": Op.LIKE, ">": Op.GT, ">=": Op.GTE, "<": Op.LT, "<=": Op.LTE}
CONSTANTS = {"null": None, "true": True, "false": False}
KEYWORDS = ("AND", "OR", "NOT", "IN")

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.]))
      | (?P<word>[^\W\d]\w*(?:\.[\w-]+)*)
      | (?P<sign>>=|<=|[:~<>()\[\],-])
    )""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """text, number, word, keyword, sign or end."""
    text: str
    at: int
    """Where it starts, in characters."""


def parse_text(query: str) -> Filter:
    """The filter that the text says; BadRequest says where it cannot be understood."""
    reading = _Reading(query)
    found = reading.either(1)
    if reading.next.kind != "end":
        raise reading.wrong("AND, OR or the end")
    return found


class _Reading:
    """The tokens of a query, with one to look ahead."""

    def __init__(self, query: str) -> None:
        self.query = query
        self.tokens = _tokens(query)
        self.position = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.position]

    def take(self, *texts: str) -> str | None:
        """The next sign or keyword, when it is one of `texts`; then it is behind us."""
        token = self.next
        if token.kind not in ("sign", "keyword") or token.text not in texts:
            return None
        self.position += 1
        return token.text

    def wrong(self, expected: str) -> BadRequest:
        """What to raise where something else than `expected` stands."""
        seen = f"'{self.next.text[:40]}'" if self.next.kind != "end" else "the end"
        shown = self.query if len(self.query) <= 200 else f"{self.query[:200]}..."
        return BadRequest(
            f"Invalid filter query: {shown} (at character {self.next.at + 1}: {seen}, where {expected} should stand)"
        )

    def either(self, depth: int) -> Filter:
        """Conditions with OR between them."""
        if depth > DEEPEST:
            raise BadRequest(f"Invalid filter: nested deeper than {DEEPEST} levels; ask for less at a time")
        parts = [self.together(depth)]
        while self.take("OR"):
            parts.append(self.together(depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def together(self, depth: int) -> Filter:
        """Conditions with AND or nothing between them."""
        parts = [self.one(depth)]
        while self.take("AND") or self._starts_one():
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def one(self, depth: int) -> Filter:
        """One condition, or a group in parentheses, with or without `-` in front."""
        if self.take("-", "NOT"):
            if depth >= DEEPEST:
                raise BadRequest(f"Invalid filter: nested deeper than {DEEPEST} levels; ask for less at a time")
            return Not(self.one(depth + 1))
        if self.take("("):
            inner = self.either(depth + 1)
            if not self.take(")"):
                raise self.wrong("')'")
            return inner
        field = dotted(self.field())
        if sign := self.take(*COMPARISONS):
            return tested(field, COMPARISONS[sign], self.value())
        denied = self.take("NOT")
        if self.take("IN"):
            return tested(field, Op.NIN if denied else Op.IN, self.values())
        raise self.wrong("IN" if denied else "one of : ~ > >= < <= IN, NOT IN")

    def field(self) -> list[str]:
        """`name`, `custom_fields.team`, `custom_fields["team"]`."""
        if self.next.kind != "word":
            raise self.wrong("the name of a field")
        steps = self._advance().split(".")
        while self.take("["):
            if self.next.kind != "text":
                raise self.wrong("a key in double quotes")
            steps.append(self._text())
            if not self.take("]"):
                raise self.wrong("']'")
        return steps

    def values(self) -> list[Any]:
        """`["a", "b"]`."""
        if not self.take("["):
            raise self.wrong("a list in brackets")
        found = [self.value()]
        while self.take(","):
            found.append(self.value())
        if not self.take("]"):
            raise self.wrong("',' or ']'")
        return found

    def value(self) -> Any:
        """Text in double quotes, a number, true, false or null."""
        match self.next.kind:
            case "text":
                return self._text()
            case "number":
                return self._number()
            case "word" if self.next.text in CONSTANTS:
                return CONSTANTS[self._advance()]
            case _:
                raise self.wrong("a value (text in double quotes, a number, true, false or null)")

    def _starts_one(self) -> bool:
        token = self.next
        return token.kind == "word" or (token.kind in ("sign", "keyword") and token.text in ("(", "-", "NOT"))

    def _advance(self) -> str:
        self.position += 1
        return self.tokens[self.position - 1].text

    def _text(self) -> str:
        try:
            found: str = json.loads(self.next.text, strict=False)
        except ValueError:
            raise self.wrong("text with the escapes of JSON") from None
        self.position += 1
        return found

    def _number(self) -> int | float:
        try:
            found: int | float = json.loads(self.next.text)
        except ValueError:
            raise self.wrong("a number as JSON writes it") from None
        self.position += 1
        return found


def _tokens(query: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 0, len(query.rstrip())
    while at < end:
        match = _TOKEN.match(query, at, end)
        if match is None or match.lastgroup is None:
            start = at + len(query[at:]) - len(query[at:].lstrip())
            found.append(_Token("unknown", query[start], start))
            break
        text = match[match.lastgroup]
        kind = match.lastgroup
        if kind == "word" and text.upper() in KEYWORDS:
            kind, text = "keyword", text.upper()
        found.append(_Token(kind, text, match.start(match.lastgroup)))
        at = match.end()
    found.append(_Token("end", "", end))
    return found
