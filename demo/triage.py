"""Writes the demonstration's data: support messages in, triage records out.

`python -m demo.triage` rewrites every file in `demo/data` byte for byte, from the phrasings in `demo/phrasings` and
one seed. Four files: what the model learns from, and three ways of asking what it learnt. A held-out message never
equals a training message, not even after names and numbers are masked.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

TEAMS = ("billing", "shipping", "technical", "account")
URGENCIES = ("normal", "high")
PRODUCTS = ("camera", "doorbell", "thermostat", "speaker", "router", "printer")
NAMES = ("Ana", "Ben", "Carla", "David", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kofi", "Lena", "Marta")

INSTRUCTION = "Triage as JSON: team (billing, shipping, technical, account), urgency (normal, high), product, order."
"""The system message of every row. It names the keys and labels, so that the untrained model has a fair chance."""

VALIDATION_ROWS = 24
HELDOUT_ROWS = 50
"""Rows in each generated held-out file. One row is 2 points of exact match."""

ORDERLESS = 0.3
"""Share of messages that name no order, whose record says null."""

SEED = 20
HERE = Path(__file__).parent
PHRASINGS = HERE / "phrasings"
DATA = HERE / "data"


class Record(TypedDict):
    """What triage finds in a message: the assistant's answer, as JSON in this key order."""

    team: str
    """Who should answer: one of TEAMS."""

    urgency: str
    """What the sender says about time, not what we would guess: high if it must be soon, normal if it may take a while
    or if they say nothing."""

    product: str
    """The product the message names: one of PRODUCTS."""

    order: str | None
    """The four digits of the order number, as written. None if the message names no order."""


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


class Row(TypedDict):
    """One training or evaluation example, as a chat: instruction, support message, record."""

    messages: list[Message]


@dataclass(frozen=True)
class Phrasings:
    """One writer's ways of saying things. Slots in braces: {name}, {product}, {number}, {amount}, {small}."""

    openings: Sequence[str]
    """Greetings. An empty one means none; a repeated one is drawn more often."""

    layouts: Sequence[str]
    """The order of the parts, with slots {opening}, {problem}, {order} and {urgency}."""

    orders: Sequence[str]
    """Sentences that name the order number."""

    problems: dict[str, Sequence[str]]
    """Sentences about a product, by team."""

    cues: dict[str, Sequence[str]]
    """Sentences about time, by urgency."""

    @classmethod
    def read(cls, path: Path) -> Phrasings:
        """Read a phrasings file, and check that it knows every team and every urgency."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        for key, labels in (("problem", TEAMS), ("urgency", URGENCIES)):
            if set(raw[key]) != set(labels):
                raise ValueError(f"{path}: {key} must have exactly the keys {', '.join(labels)}")
        return cls(raw["openings"], raw["layouts"], raw["order"], raw["problem"], raw["urgency"])


@dataclass(frozen=True)
class Example:
    """A message and its record, before they become a row."""

    message: str
    record: Record

    def row(self) -> Row:
        return {
            "messages": [
                {"role": "system", "content": INSTRUCTION},
                {"role": "user", "content": self.message},
                {"role": "assistant", "content": json.dumps(self.record)},
            ]
        }


class Writer:
    """Writes messages from one set of phrasings, dealing each list like a shuffled deck so that all get used."""

    def __init__(self, phrasings: Phrasings, rng: random.Random, numbers: Iterator[str]) -> None:
        self.phrasings = phrasings
        self.rng = rng
        self.numbers = numbers
        self.openings = deal(rng, phrasings.openings)
        self.layouts = deal(rng, phrasings.layouts)
        self.orders = deal(rng, phrasings.orders)
        self.products = deal(rng, PRODUCTS)
        self.cues = {urgency: deal(rng, phrasings.cues[urgency]) for urgency in URGENCIES}

    def write(self, team: str, problem: str, urgency: str) -> Example:
        """Write one message about `problem`, with a cue, an order, a layout and a product of its own."""
        record: Record = {
            "team": team,
            "urgency": urgency,
            "product": next(self.products),
            "order": None if self.rng.random() < ORDERLESS else next(self.numbers),
        }
        parts = next(self.layouts).format(
            opening=next(self.openings),
            problem=problem,
            order=next(self.orders) if record["order"] else "",
            urgency=next(self.cues[urgency]),
        )
        message = parts.format(
            name=self.rng.choice(NAMES),
            product=record["product"],
            number=record["order"],
            amount=self.rng.randint(20, 95),
            small=self.rng.randint(3, 19),
        )
        return Example(" ".join(message.split()), record)


def make() -> dict[str, list[Row]]:
    """Make the five data sets, by file name. The same on every machine and every Python: one seed feeds all."""
    rng = random.Random(SEED)
    numbers = iter([str(number) for number in rng.sample(range(1000, 10000), 1000)])  # no order number comes twice
    training = Phrasings.read(PHRASINGS / "training.json")
    separate = Phrasings.read(PHRASINGS / "separate.json")

    train = write_training(Writer(training, rng, numbers))
    seen = {mask(example.message) for example in train}
    known = write_heldout(Writer(training, rng, numbers), seen)
    apart = write_heldout(Writer(separate, rng, numbers), seen)
    asked = seen | {mask(example.message) for example in known}
    validation = write_heldout(Writer(training, rng, numbers), asked)[:VALIDATION_ROWS]
    return {
        "train.jsonl": [example.row() for example in train],
        "validation.jsonl": [example.row() for example in validation],
        "heldout_known.jsonl": [example.row() for example in known],
        "heldout_separate.jsonl": [example.row() for example in apart],
        "heldout_typed.jsonl": [example.row() for example in read_typed(PHRASINGS / "typed.json")],
    }


def write_training(writer: Writer) -> list[Example]:
    """Write every problem at both urgencies, and once more at either: a problem says nothing about its urgency."""
    third = deal(writer.rng, URGENCIES)
    examples = [
        writer.write(team, problem, urgency)
        for team, problem in every_problem(writer.phrasings)
        for urgency in (*URGENCIES, next(third))
    ]
    writer.rng.shuffle(examples)
    return examples


def write_heldout(writer: Writer, seen: set[str]) -> list[Example]:
    """Write HELDOUT_ROWS messages whose masked text is not in `seen`, each about another problem."""
    problems = {team: deal(writer.rng, writer.phrasings.problems[team]) for team in TEAMS}
    examples: list[Example] = []
    urgencies = deal(writer.rng, URGENCIES)
    while len(examples) < HELDOUT_ROWS:
        team = TEAMS[len(examples) % len(TEAMS)]
        example = writer.write(team, next(problems[team]), next(urgencies))
        if mask(example.message) not in seen:
            examples.append(example)
    return examples


def read_typed(path: Path) -> list[Example]:
    """Read the messages that were typed and labelled by hand."""
    return [
        Example(
            entry["message"],
            {
                "team": entry["team"],
                "urgency": entry["urgency"],
                "product": entry["product"],
                "order": entry["order"],
            },
        )
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]


def every_problem(phrasings: Phrasings) -> Iterator[tuple[str, str]]:
    """Yield every (team, problem)."""
    for team in TEAMS:
        for problem in phrasings.problems[team]:
            yield team, problem


def deal(rng: random.Random, items: Sequence[str]) -> Iterator[str]:
    """Yield the items in random order, all of them before any comes again, without end."""
    while True:
        yield from rng.sample(items, len(items))


def mask(message: str) -> str:
    """The message without its names, products, numbers and capitals: two messages of one mask are one message."""
    words = "|".join((*NAMES, *PRODUCTS))
    text = re.sub(rf"\b({words})\b", "_", message, flags=re.IGNORECASE)
    return " ".join(re.sub(r"\d+", "#", text).lower().split())


def dump(rows: Iterable[Row]) -> str:
    """The rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def main() -> None:
    """Rewrite every file of the data set."""
    DATA.mkdir(exist_ok=True)
    for name, rows in make().items():
        (DATA / name).write_text(dump(rows), encoding="utf-8", newline="\n")
        print(f"{DATA / name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
