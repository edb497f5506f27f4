"""A checkpoint's tokenizer: text to ids and back, and which ids begin and end what the model says.

Reads `tokenizer.json` through `tokenizers` alone; transformers' tokenizer classes would load torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from tunesmith.errors import EngineError

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text's tokens and the characters [start, end) each of them stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Encodes as the checkpoint's authors did; make one with `Tokenizer.load`."""

    special_tokens: dict[str, str]
    """The named special tokens, as chat templates see them: `{"bos_token": "<s>", ...}`."""
    start_ids: tuple[int, ...]
    """What stands before a text that is encoded with `special=True`; mostly the start token, or nothing."""
    end_id: int
    """The token that training puts behind a completion or a text."""
    end_ids: frozenset[int]
    """The tokens that end an answer."""
    known: float
    """Ids below this one have an embedding, as config.json says; infinite where it does not."""
    _inner: tokenizers.Tokenizer

    @classmethod
    def load(cls, model_dir: Path) -> Tokenizer:
        """Read `tokenizer.json` and what the checkpoint's other files say about special tokens.

        EngineError (ModelLoadError) if no `tokenizer.json` is there and can be read, or no end token is named.
        """
        path = model_dir / "tokenizer.json"
        if not path.is_file():
            raise EngineError(
                f"{model_dir.name} has no tokenizer.json: save the checkpoint's tokenizer in that form",
                "ModelLoadError",
            )
        inner = _read_tokenizer(path)
        inner.no_truncation()
        inner.no_padding()
        special = _special_tokens(model_dir)
        end_ids = _end_ids(model_dir)
        end_id = inner.token_to_id(special.get("eos_token", ""))
        if end_id is None:
            if not end_ids:
                raise EngineError(
                    f"{model_dir.name} names no end token: set eos_token in tokenizer_config.json or eos_token_id in "
                    "config.json",
                    "ModelLoadError",
                )
            end_id = end_ids[0]
        return cls(special, _start_ids(inner), end_id, frozenset([*end_ids, end_id]), _known(model_dir), inner)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Ids of `text`; with `special` behind the start token, if this model wants one. Never an end token."""
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return [*self.start_ids, *ids] if special else ids

    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        """Each text alone, without special tokens, in parallel."""
        found = self._inner.encode_batch(list(texts), add_special_tokens=False)
        return [Encoded(one.ids, one.offsets) for one in found]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of `ids`, without special tokens unless asked for; bytes that are not UTF-8 become U+FFFD."""
        text: str = self._inner.decode(list(ids), skip_special_tokens=skip_special)
        return text


def _read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001 - tokenizers raises nothing narrower
        raise EngineError(f"tokenizer.json cannot be read ({error}); upload it again", "ModelLoadError") from None


def _known(model_dir: Path) -> float:
    config = _read(model_dir / "config.json")
    size = (config.get("text_config") or config).get("vocab_size")
    return size if isinstance(size, int) else math.inf


def _start_ids(inner: tokenizers.Tokenizer) -> tuple[int, ...]:
    """The special tokens that the checkpoint's post-processor puts before a text."""
    probe = inner.encode("a", add_special_tokens=True)
    plain = len(inner.encode("a", add_special_tokens=False).ids)
    mask = probe.special_tokens_mask
    leading = next((i for i, special in enumerate(mask) if not special), 0)
    return tuple(probe.ids[: min(leading, len(probe.ids) - plain)])


def _special_tokens(model_dir: Path) -> dict[str, str]:
    """tokenizer_config.json, else special_tokens_map.json; a token is a string or an object with `content`."""
    merged = {**_read(model_dir / "special_tokens_map.json"), **_read(model_dir / "tokenizer_config.json")}
    found: dict[str, str] = {}
    for name in _NAMED_TOKENS:
        token = merged.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str):
            found[name] = content
    return found


def _end_ids(model_dir: Path) -> list[int]:
    """eos_token_id of generation_config.json and config.json (also of a nested text configuration)."""
    config = _read(model_dir / "config.json")
    sources = [_read(model_dir / "generation_config.json"), config, config.get("text_config") or {}]
    found: list[int] = []
    for source in sources:
        named = source.get("eos_token_id")
        found += [i for i in (named if isinstance(named, list) else [named]) if isinstance(i, int) and i not in found]
    return found


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EngineError(f"{path.name} is not JSON: {error}", "ModelLoadError") from None
    return value if isinstance(value, dict) else {}
