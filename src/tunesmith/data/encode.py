"""A row as tokens with a mask: what the model reads and what it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.data.masks import assistant_mask, render_for_training
from tunesmith.data.rows import Conversation, Faults, PromptCompletion, Row, Text
from tunesmith.data.template import ChatTemplate
from tunesmith.data.tokens import Tokenizer
from tunesmith.errors import DataError

Placed = tuple[str, Row]
"""A row and where it stands: `train.jsonl line 17`."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row, ready to train on. The first token is never trained on: nothing stands before it to predict it from."""

    ids: list[int]
    mask: list[int]
    """1 where a loss is taken on the token, else 0."""
    truncated: bool


@dataclass(frozen=True, slots=True)
class Encoder:
    """Renders, tokenises and truncates rows."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    """None where neither fileset nor checkpoint has one; conversations are refused then."""
    limit: int
    """Tokens a row may have."""

    def encode(self, rows: Sequence[Placed], faults: Faults) -> list[TokenRow]:
        """The rows as tokens, in order, except those that the template refuses: they go into `faults`."""
        rendered = [self._render(row, place, faults) for place, row in rows]
        texts = [text for pieces, _ in filter(None, rendered) for text in pieces]
        encoded = iter(self.tokenizer.encode_batch(texts))
        found: list[TokenRow] = []
        for (_, row), pieces_and_spans in zip(rows, rendered, strict=True):
            if pieces_and_spans is None:
                continue
            pieces, spans = pieces_and_spans
            tokens = [next(encoded) for _ in pieces]
            if isinstance(row, PromptCompletion):
                found.append(self._prompt_completion(tokens[0].ids, tokens[1].ids))
            elif isinstance(row, Text):
                ids = [*self.tokenizer.start_ids, *tokens[0].ids, self.tokenizer.end_id]
                found.append(self._cut_right(ids, [1] * len(ids)))
            else:
                mask = assistant_mask(pieces[0], tokens[0], spans, self.tokenizer.end_ids)
                found.append(self._cut_right(tokens[0].ids, mask))
        return found

    def _render(self, row: Row, place: str, faults: Faults) -> tuple[list[str], list[tuple[int, int]]] | None:
        """The texts to tokenise and, for a conversation, the assistant's character spans; None after a fault."""
        if isinstance(row, PromptCompletion):
            return [row.prompt, row.completion], []
        if isinstance(row, Text):
            return [row.text], []
        try:
            text, spans = self._conversation(row)
        except DataError as fault:
            faults.add(place, fault)
            return None
        return [text], spans

    def _conversation(self, row: Conversation) -> tuple[str, list[tuple[int, int]]]:
        if self.template is None:
            raise DataError(
                "key 'messages': neither the fileset nor the model has a chat template; set one in the fileset's "
                "metadata, or use rows with 'prompt' and 'completion'"
            )
        return render_for_training(self.template, row)

    def _prompt_completion(self, prompt: list[int], completion: list[int]) -> TokenRow:
        """Start token, prompt, completion, end token. A long prompt loses its beginning, behind the start token."""
        start = [*self.tokenizer.start_ids]
        answer = [*completion, self.tokenizer.end_id]
        room = max(0, self.limit - len(start) - len(answer))
        kept = prompt[len(prompt) - room :] if room < len(prompt) else prompt
        ids = [*start, *kept, *answer]
        row = self._cut_right(ids, [0] * (len(start) + len(kept)) + [1] * len(answer))
        return TokenRow(row.ids, row.mask, row.truncated or len(kept) < len(prompt))

    def _cut_right(self, ids: list[int], mask: list[int]) -> TokenRow:
        return TokenRow(ids[: self.limit], [0, *mask[1 : self.limit]][: len(ids)], len(ids) > self.limit)
