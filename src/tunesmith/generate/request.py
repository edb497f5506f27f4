"""What the engine is asked and what it answers: a prompt in tokens, and pieces of text as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tunesmith.generate.adapters import Adapter
from tunesmith.generate.sampling import Sampling

Finish = Literal["stop", "length", "failed"]
"""stop = the model ended or a stop string came; length = `most_tokens` are there; failed = see the piece's error."""


@dataclass(frozen=True, slots=True)
class Piece:
    """News of one request: one step's token and the text that became certain with it."""

    tokens: tuple[int, ...]
    """Chosen in this step. An end token is in here but not in any text."""
    text: str
    finish: Finish | None = None
    """Set on the last piece and on no other."""
    error: str = ""


@dataclass(eq=False, slots=True)
class Request:
    """One prompt to go on from."""

    prompt: Sequence[int]
    sampling: Sampling
    most_tokens: int
    """Tokens to choose at most; at least 1."""
    emit: Callable[[Piece], None]
    """Called on the engine's thread, in order; must not block. Never called again after the piece with a `finish`."""
    adapter: Adapter | None = None
    """None = the base model. The request keeps it alive, so unloading does not disturb what runs."""
    stops: tuple[str, ...] = ()
    """Text that ends the answer and is not part of it."""
    ignore_end: bool = False
    """Go on past end tokens, for measurements."""
    cancelled: bool = False
    """Set by anyone at any time: the request leaves at the next step, without another piece."""
