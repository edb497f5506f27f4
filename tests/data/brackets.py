"""Shows what of a conversation is trained on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.data.encode import Encoder, TokenRow
from tunesmith.data.faults import Faults, Place
from tunesmith.data.rows import Conversation
from tunesmith.data.template import ChatTemplate
from tunesmith.data.tokens import Tokenizer

Messages = Sequence[Mapping[str, Any]]


def encoded(tokenizer: Tokenizer, source: str, messages: Messages, tools: Any = None, limit: int = 1000) -> TokenRow:
    """The conversation as a job tokenises it; BadRows if the template refuses it."""
    faults = Faults()
    encoder = Encoder(tokenizer, ChatTemplate(source, tokenizer.special_tokens), limit)
    (row,) = encoder.encode([(Place("here", 1), Conversation(tuple(messages), tools))], faults)
    faults.raise_any()
    assert row
    return row


def bracketed(tokenizer: Tokenizer, source: str, messages: Messages, tools: Any = None, limit: int = 1000) -> str:
    """Its text, with neighbouring tokens that are trained on between [ and ]; half a character is shown as U+FFFD."""
    row = encoded(tokenizer, source, messages, tools, limit)
    pieces, start = [], 0
    for trained, group in itertools.groupby(row.mask):
        stop = start + len(list(group))
        text = tokenizer.decode(row.ids[start:stop], skip_special=False)
        pieces.append(f"[{text}]" if trained else text)
        start = stop
    return "".join(pieces)
