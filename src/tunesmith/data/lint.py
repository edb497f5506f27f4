"""Looks at rows before anything runs: every bad one, and what a job would make of the others.

Reads with the job's own functions. Without a tokenizer it says what is lawful, which takes the standard library alone;
with one it also renders and counts, and then finds what a chat template refuses.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.faults import Fault, Faults, Place
from tunesmith.data.find import Inputs, inputs, refuse_empty
from tunesmith.data.read import read_rows
from tunesmith.data.rows import FORMATS, Conversation, PromptCompletion, Row, RowParser, RowRules, as_columns

if TYPE_CHECKING:  # they need the extra `data`
    from tunesmith.data.encode import Encoder, TokenRow

CHUNK_ROWS = 1_000


@dataclass(slots=True)
class Tally:
    """How many rows are so, and where the first of them stands."""

    count: int = 0
    first: Place | None = None

    def add(self, place: Place) -> None:
        """One more."""
        self.count += 1
        self.first = self.first or place

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"count": self.count, "first": self.first and str(self.first)}


@dataclass(slots=True)
class Counts:
    """What lawful rows are like."""

    training: int = 0
    validation: int = 0
    formats: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FORMATS.values(), 0))
    duplicates: Tally = field(default_factory=Tally)
    """Rows that are equal to an earlier one."""
    empty_answers: Tally = field(default_factory=Tally)
    """Rows in which what is to be learnt is white space or nothing."""
    longest: int = 0
    """Tokens before any cut; characters where nothing was tokenised."""
    longest_at: Place | None = None


@dataclass(slots=True)
class TokenCounts:
    """What the tokenizer makes of them, over all files."""

    limit: int
    """Tokens that a row may have."""
    tokens: int = 0
    """After cutting."""
    trained: int = 0
    truncated: Tally = field(default_factory=Tally)
    dropped: Tally = field(default_factory=Tally)
    """Rows without anything to train on within the limit; a job leaves them out."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found."""

    files: Inputs
    faults: list[Fault]
    """File by file, line by line."""
    counts: Counts
    tokens: TokenCounts | None
    """None without a tokenizer."""
    notes: list[str]
    """What the user should know and a job would only warn of."""

    def as_json(self) -> dict[str, Any]:
        """As plain data, for programs."""
        counts, tokens = self.counts, self.tokens
        unit = "tokens" if tokens else "characters"
        found: dict[str, Any] = {
            "files": {
                "training": [name for _, name in self.files.training],
                "validation": [name for _, name in self.files.validation],
                "unused": self.files.unused,
            },
            "bad_rows": [
                {"file": each.place.file, each.place.unit: each.place.line, "key": each.key, "reason": each.reason}
                for each in self.faults
            ],
            "rows": {"training": counts.training, "validation": counts.validation, **counts.formats},
            "duplicates": counts.duplicates.as_json(),
            "empty_answers": counts.empty_answers.as_json(),
            "longest": {unit: counts.longest, "at": counts.longest_at and str(counts.longest_at)},
            "notes": self.notes,
        }
        if tokens:
            found["tokens"] = {
                "limit": tokens.limit,
                "total": tokens.tokens,
                "trained": tokens.trained,
                "truncated": tokens.truncated.as_json(),
                "dropped": tokens.dropped.as_json(),
            }
        return found


def lint(paths: Sequence[Path], rules: RowRules, encoder: Encoder | None = None) -> Report:
    """Read everything at `paths` as a job would; DataError only where a job would not find rows at all."""
    files, faults, parse = inputs(paths), Faults(keep=None), RowParser(rules)
    report = Report(files, [], Counts(), TokenCounts(encoder.limit) if encoder else None, [])
    seen: set[bytes] = set()
    for named, purpose in ((files.training, "training"), (files.validation, "validation")):
        before, bad = getattr(report.counts, purpose), faults.count
        for path, name in named:
            for chunk in _chunks(read_rows(path, name, faults, parse)):
                _count(report, chunk, encoder.encode(chunk, faults) if encoder else itertools.repeat(None), seen)
                setattr(report.counts, purpose, getattr(report.counts, purpose) + len(chunk))
        refuse_empty(getattr(report.counts, purpose) - before + faults.count - bad, named)
    report.faults.extend(faults.in_order())
    if parse.columns:
        report.notes.append(as_columns(parse.columns))
    if files.unused:
        report.notes.append(f"data files that are not used: {', '.join(files.unused)}")
    return report


def _chunks(rows: Iterator[tuple[Place, Row]]) -> Iterator[list[tuple[Place, Row]]]:
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        yield chunk


def _count(report: Report, rows: list[tuple[Place, Row]], made: Iterable[TokenRow | None], seen: set[bytes]) -> None:
    counts, totals = report.counts, report.tokens
    for (place, row), tokens in zip(rows, made, strict=False):
        counts.formats[FORMATS[type(row)]] += 1
        digest = hashlib.blake2b(repr(row).encode(), digest_size=16).digest()
        if digest in seen:
            counts.duplicates.add(place)
        seen.add(digest)
        if _answers_nothing(row):
            counts.empty_answers.add(place)
        length = tokens.length if tokens else 0 if totals else _characters(row)
        if length > counts.longest:
            counts.longest, counts.longest_at = length, place
        if tokens and totals:
            _count_tokens(totals, place, tokens)


def _count_tokens(totals: TokenCounts, place: Place, tokens: TokenRow) -> None:
    trained = sum(tokens.mask)
    if tokens.truncated:
        totals.truncated.add(place)
    if not trained:
        totals.dropped.add(place)
        return
    totals.tokens += len(tokens.ids)
    totals.trained += trained


def _answers_nothing(row: Row) -> bool:
    if isinstance(row, PromptCompletion):
        return not row.completion.strip()
    if isinstance(row, Conversation):
        said = [message for message in row.messages if message["role"] == "assistant"]
        return any(
            not any((message.get("content") or "").strip() or message.get(key) for key in ("thinking", "tool_calls"))
            for message in said
        )
    return not row.text.strip()


def _characters(row: Row) -> int:
    if isinstance(row, PromptCompletion):
        return len(row.prompt) + len(row.completion)
    if isinstance(row, Conversation):
        return sum(len(message.get("content") or message.get("thinking") or "") for message in row.messages)
    return len(row.text)
