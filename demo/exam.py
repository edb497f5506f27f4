"""The examination: held-out questions to the base and to the adapter, the same way, and what they answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.score import Score, parse, score
from tunesmith import Tunesmith

DATA = Path(__file__).parent / "data"
AT_ONCE = 16
LONGEST_ANSWER_TOKENS = 48
SHOWN_CHARACTERS = 120
"""Of an answer that is no record: it goes on for as long as it may."""

Record = dict[str, object]


@dataclass(frozen=True)
class Group:
    """Questions of one kind, and the share of exact answers that the adapter must reach."""

    title: str
    file: str
    target: float | None = None


GROUPS = (
    Group("phrasings it has seen, in new combinations", "heldout_known.jsonl", 0.85),
    Group("phrasings written separately", "heldout_separate.jsonl", 0.55),
    Group("messages typed by hand", "heldout_typed.jsonl"),
)
BASE_BELOW = 0.10
"""The base must not reach this in any group with a target: else there was nothing to learn."""


@dataclass(frozen=True)
class Result:
    """What base and adapter made of a group."""

    group: Group
    questions: list[str]
    expected: list[Record]
    base: list[str]
    adapter: list[str]

    @property
    def scores(self) -> tuple[Score, Score]:
        """Of base and adapter."""
        return score(self.base, self.expected), score(self.adapter, self.expected)


def examine(client: Tunesmith, base: str, adapter: str, told: Callable[[int, int], None]) -> list[Result]:
    """Ask everything of both, at temperature 0; `told` hears the answers so far and in all."""
    rows = {group: read(DATA / group.file) for group in GROUPS}
    asked = [(model, row) for group in GROUPS for model in (base, adapter) for row in rows[group]]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = []
        for answer in pool.map(lambda one: ask(client, *one), asked):
            answers.append(answer)
            told(len(answers), len(asked))
    found = iter(answers)
    return [
        Result(
            group,
            questions=[row[-2]["content"] for row in rows[group]],
            expected=[json.loads(row[-1]["content"]) for row in rows[group]],
            base=[next(found) for _ in rows[group]],
            adapter=[next(found) for _ in rows[group]],
        )
        for group in GROUPS
    ]


def ask(client: Tunesmith, model: str, conversation: list[dict[str, Any]]) -> str:
    """The model's own last turn in place of the expected one."""
    answer = client.inference.chat(
        model=model, messages=conversation[:-1], temperature=0, max_tokens=LONGEST_ANSWER_TOKENS
    )
    return str(answer["choices"][0]["message"]["content"])


def read(path: Path) -> list[list[dict[str, Any]]]:
    """The conversations of a file."""
    return [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]


def print_scores(console: Console, results: Sequence[Result]) -> None:
    """Exact matches, a row per group."""
    table = Table(title="Answers that are exactly the expected record", title_justify="left")
    table.add_column("questions")
    for heading in ("count", "base", "adapter", "target"):
        table.add_column(heading, justify="right")
    for result in results:
        base, adapter = result.scores
        target = result.group.target
        table.add_row(
            result.group.title,
            str(base.rows),
            f"{base.exact_match:.0%}",
            Text(f"{adapter.exact_match:.0%}", style="bold green" if adapter.exact_match >= (target or 0) else "red"),
            f"{target:.0%}" if target is not None else "",
        )
    console.print(table)


def print_answers(console: Console, result: Result) -> None:
    """Each question with what was expected and what both said."""
    console.print(f"\n[bold]{result.group.title}, as they are[/]")
    rows = zip(result.questions, result.expected, result.base, result.adapter, strict=True)
    for question, expected, base, adapter in rows:
        right = parse(adapter) == expected
        console.print()
        _line(console, "✓" if right else "✗", question, "bold green" if right else "bold red")
        _line(console, "  expected", json.dumps(expected), "dim")
        _line(console, "  base    ", shortened(base), "dim")
        _line(console, "  adapter ", shortened(adapter), "green" if right else "red")


def shortcomings(results: Sequence[Result]) -> list[str]:
    """A sentence for each target that was missed."""
    missed = []
    for result in results:
        base, adapter = result.scores
        target = result.group.target
        if target is None:
            continue
        if adapter.exact_match < target:
            missed.append(f"{result.group.title}: the adapter got {adapter.exact_match:.0%}, less than {target:.0%}")
        if base.exact_match >= BASE_BELOW:
            missed.append(f"{result.group.title}: the base alone got {base.exact_match:.0%}, so this shows little")
    return missed


def shortened(text: str) -> str:
    """On one line, and no longer than worth reading."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"


def _line(console: Console, label: str, text: str, style: str) -> None:
    console.print(Text.assemble((label, style), " ", text), soft_wrap=True)
