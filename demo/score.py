"""Compares the answers of a model with the records that were expected, and forgives nothing but whitespace around."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """How many of `rows` answers were right."""

    rows: int
    exact: int
    """Answers that are the whole record: JSON, with the expected keys and values and no others."""

    fields: Mapping[str, int]
    """By key, the answers whose value is the expected one. An answer that is no JSON object has no values."""

    @property
    def exact_match(self) -> float:
        """Share of exact answers, from 0 to 1."""
        return self.exact / self.rows


def parse(answer: str) -> dict[str, object] | None:
    """The record in an answer. None if the answer, taken whole, is not one JSON object."""
    try:
        record = json.loads(answer)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def score(answers: Sequence[str], expected: Sequence[Mapping[str, object]]) -> Score:
    """Score answers against the expected records, pairwise."""
    if len(answers) != len(expected) or not expected:
        raise ValueError(f"{len(answers)} answers for {len(expected)} expected records: every record needs one answer")
    records = [parse(answer) for answer in answers]
    exact = sum(record == dict(want) for record, want in zip(records, expected, strict=True))
    fields = {
        key: sum(
            record is not None and key in record and record[key] == want[key]
            for record, want in zip(records, expected, strict=True)
        )
        for key in expected[0]
    }
    return Score(len(expected), exact, fields)
