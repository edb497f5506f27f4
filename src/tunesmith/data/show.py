"""The first rows of a data set as the trainer sees them: their text in pieces, each trained on or not.

Runs in a process of its own, which ends itself when its time or its memory is used up.
"""

from __future__ import annotations

import itertools
import resource
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.data.encode import Encoder, TokenRow
from tunesmith.data.faults import Faults, Place
from tunesmith.data.find import inputs, refuse_empty
from tunesmith.data.previews import MEMORY_BYTES, READING, RENDERING, PreviewRequest
from tunesmith.data.read import read_rows
from tunesmith.data.rows import FORMATS, Row, RowParser
from tunesmith.data.tokens import Tokenizer


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring tokens that are all trained on, or all not."""

    text: str
    """As the model reads it, special tokens included."""
    trained: bool
    tokens: int


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One row."""

    file: str
    line: int
    """1-based; the item's number in a file that is one JSON array."""
    format: str
    segments: list[Segment]
    tokens: int
    trained_tokens: int
    """0: a job leaves the row out."""
    whole_tokens: int
    """Before it was cut to the limit."""
    truncated: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """The answer."""

    sequence_limit: int
    rows: list[ShownRow]


def show(request: PreviewRequest) -> Shown:
    """The rows that were asked for; DataError names the bad ones among them by file, line and key."""
    _say(READING)
    encoder = Encoder.of(Path(request.model), request.chat_template, request.sequence_limit)
    files, faults, parse = inputs([Path(request.data)]), Faults(), RowParser(request.rules)
    read = itertools.chain.from_iterable(read_rows(path, name, faults, parse) for path, name in files.training)
    rows = list(itertools.islice(read, request.rows))
    faults.raise_any()
    refuse_empty(len(rows), files.training)
    _say(RENDERING)
    encoded = zip(rows, encoder.encode(rows, faults), strict=True)
    faults.raise_any()
    shown = [_shown(encoder.tokenizer, place, row, made) for (place, row), made in encoded if made]
    return Shown(request.sequence_limit, shown)


def limit_this_process(seconds: float) -> None:
    """End by itself after `seconds`, even when whoever started it is gone, and never take all of the memory."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def segments(tokenizer: Tokenizer, row: TokenRow) -> list[Segment]:
    """The row cut where the mask changes.

    A piece is what its tokens add to the text before them: decoded alone, many tokenizers would lose its first space.
    """
    found: list[Segment] = []
    start, before = 0, ""
    for trained, group in itertools.groupby(row.mask):
        stop = start + _length(group)
        text = tokenizer.decode(row.ids[:stop], skip_special=False)
        added = text[len(before) :] if text.startswith(before) else tokenizer.decode(row.ids[start:stop], False)
        found.append(Segment(added, bool(trained), stop - start))
        start, before = stop, text
    return found


def _shown(tokenizer: Tokenizer, place: Place, row: Row, made: TokenRow) -> ShownRow:
    return ShownRow(
        file=place.file,
        line=place.line,
        format=FORMATS[type(row)],
        segments=segments(tokenizer, made),
        tokens=len(made.ids),
        trained_tokens=sum(made.mask),
        whole_tokens=made.length,
        truncated=made.truncated,
    )


def _length(group: Iterable[int]) -> int:
    return sum(1 for _ in group)


def _say(stage: str) -> None:
    sys.stderr.write(f"{stage}\n")
    sys.stderr.flush()
