"""A row as tokens with a mask: what the model reads and what it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tunesmith.data.faults import Faults, Place, RowFault
from tunesmith.data.masks import assistant_mask, render_for_training
from tunesmith.data.rows import Conversation, PromptCompletion, Row, Text
from tunesmith.data.template import ChatTemplate, Span
from tunesmith.data.tokens import Encoded, Tokenizer
from tunesmith.errors import DataError

Placed = tuple[Place, Row]
"""A row and where it stands."""

Rendered = tuple[list[str], list[Span]]
"""The texts to tokenise, each alone, and the assistant's character spans in a conversation's."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row, ready to train on. The first token is never trained on: nothing stands before it to predict it from."""

    ids: list[int]
    mask: list[int]
    """1 where a loss is taken on the token, else 0."""
    length: int
    """Tokens that the whole row has; more than `ids` where it was cut to the limit."""

    @property
    def truncated(self) -> bool:
        """Whether the row lost tokens."""
        return self.length > len(self.ids)

    @property
    def last_trained(self) -> int:
        """The last token that a loss is taken on; there must be one."""
        return self.ids[len(self.mask) - 1 - self.mask[::-1].index(1)]


@dataclass(frozen=True, slots=True)
class Encoder:
    """Renders, tokenises and truncates rows."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    """None where neither the checkpoint nor its fileset's metadata have one; conversations are refused then."""
    limit: int
    """Tokens a row may have."""

    @classmethod
    def of(cls, model_dir: Path, chat_template: str, limit: int) -> Self:
        """For the checkpoint in `model_dir`, with a template as jinja source; "" = none."""
        tokenizer = Tokenizer.load(model_dir)
        return cls(tokenizer, ChatTemplate(chat_template, tokenizer.special_tokens) if chat_template else None, limit)

    def encode(self, rows: Sequence[Placed], faults: Faults) -> list[TokenRow | None]:
        """Each row as tokens, or None where template or model cannot take it and a fault was added."""
        rendered = self.render(rows, faults)
        texts = [text for pieces, _ in filter(None, rendered) for text in pieces]
        encoded = iter(self.tokenizer.encode_batch(texts))
        tokens = [
            found and self._tokens(row, found, [next(encoded) for _ in found[0]])
            for (_, row), found in zip(rows, rendered, strict=True)
        ]
        return [row and self._known(row, place, faults) for (place, _), row in zip(rows, tokens, strict=True)]

    def render(self, rows: Sequence[Placed], faults: Faults) -> list[Rendered | None]:
        """Each row as texts, or None where the template refuses it and a fault was added."""
        return [self._render(row, place, faults) for place, row in rows]

    def _render(self, row: Row, place: Place, faults: Faults) -> Rendered | None:
        if isinstance(row, PromptCompletion):
            return [row.prompt, row.completion], []
        if isinstance(row, Text):
            return [row.text], []
        try:
            text, spans = self._conversation(row)
        except RowFault as fault:
            faults.add(place, fault)
            return None
        except DataError as refusal:
            faults.add(place, RowFault("messages", refusal.message))
            return None
        return [text], spans

    def _known(self, row: TokenRow, place: Place, faults: Faults) -> TokenRow | None:
        """The row, or None and a fault where it has a token without an embedding."""
        most = max(row.ids, default=0)
        if most < self.tokenizer.known:
            return row
        text = self.tokenizer.decode([most], skip_special=False)
        why = f"token {most} ({text!r}) has no embedding: config.json has vocab_size {self.tokenizer.known}"
        faults.add(place, RowFault("", f"{why}; upload the tokenizer.json that belongs to this model"))
        return None

    def _tokens(self, row: Row, rendered: Rendered, encoded: list[Encoded]) -> TokenRow:
        if isinstance(row, PromptCompletion):
            return self._prompt_completion(encoded[0].ids, encoded[1].ids)
        if isinstance(row, Text):
            ids = [*self.tokenizer.start_ids, *self._ended(encoded[0].ids)]
            return self._cut_right(ids, [1] * len(ids))
        pieces, spans = rendered
        return self._cut_right(encoded[0].ids, assistant_mask(pieces[0], encoded[0], spans, self.tokenizer.end_ids))

    def _conversation(self, row: Conversation) -> tuple[str, list[Span]]:
        if self.template is None:
            raise RowFault(
                "messages",
                "the model has no chat template: upload a chat_template.jinja to its fileset, or set "
                "model.tool_calling.chat_template in that one's metadata, or use rows with 'prompt' and 'completion'",
            )
        return render_for_training(self.template, row)

    def _prompt_completion(self, prompt: list[int], completion: list[int]) -> TokenRow:
        """Start token, prompt, completion, end token. A long prompt loses its beginning, behind the start token.

        A completion that does not fit even so is not trained on: half an answer would teach to stop anywhere.
        """
        start = [*self.tokenizer.start_ids]
        answer = self._ended(completion)
        room = self.limit - len(start) - len(answer)
        kept = prompt[max(0, len(prompt) - room) :] if room > 0 else []
        row = self._cut_right([*start, *kept, *answer], [0] * (len(start) + len(kept)) + [int(room >= 0)] * len(answer))
        return TokenRow(row.ids, row.mask, len(start) + len(prompt) + len(answer))

    def _ended(self, ids: list[int]) -> list[int]:
        """With the end token behind it, unless it is there already."""
        return ids if ids[-1:] == [self.tokenizer.end_id] else [*ids, self.tokenizer.end_id]

    def _cut_right(self, ids: list[int], mask: list[int]) -> TokenRow:
        return TokenRow(ids[: self.limit], [0, *mask[1 : self.limit]][: len(ids)], len(ids))
