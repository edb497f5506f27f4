"""Turns a row's tokens into text as they come: characters that span tokens come out whole, stop strings never come out.

What the pieces add up to is exactly what decoding all tokens at once would give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a decoder writes for bytes that are not (yet) UTF-8."""
MOST_HELD_TOKENS = 32
"""A row of bytes that never become a character is given out after this many tokens. A character has 4 bytes at most."""


class TextStream:
    """Incremental detokenisation of one row.

    Tokens are decoded behind the ones given out last, because some decoders treat the first token of a text specially
    (they drop its leading space), and held back while the text ends inside a character.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._before: list[int] = []
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that is certain now; often one token's, "" inside a character."""
        self._held.append(token)
        return self._take(last=len(self._held) > MOST_HELD_TOKENS)

    def finish(self) -> str:
        """What was held back; broken characters come as U+FFFD."""
        return self._take(last=True)

    def _take(self, last: bool) -> str:
        if not self._held:
            return ""
        before = self._decode(self._before) if self._before else ""
        whole = self._decode(self._before + self._held)
        if not last and whole.endswith(BROKEN):
            return ""
        new = whole[len(before) :]
        if new or last:
            self._before, self._held = self._held, []
        return new


class StopStrings:
    """Cuts a text before the first stop string, and gives nothing out that may still become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Text to give out, and whether a stop string was reached (everything from it on is dropped)."""
        if not self._stops:
            return text, False
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            return self._held[: min(places)], True
        kept = max(self._overlap(stop) for stop in self._stops)
        given, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return given, False

    def finish(self) -> str:
        """The text held back, now that no more comes."""
        return self._held

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)
