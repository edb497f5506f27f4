"""Reads config.json, which a stranger wrote: each value is checked where it is used, and a refusal names its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.errors import Invalid

SIZE_LIMIT = 2**31 - 1
"""What any one number of a configuration may be: far above every size that exists, and a whole number of 32 bits."""

LAYER_LIMIT = 10_000
EXPERT_LIMIT = 100_000

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
FFN = ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "d_ff", "hidden_dim", "encoder_ffn_dim")
CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
ACTIVE_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_k", "num_selected_experts")
EXPERT_FFN = ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size")
SHARED_EXPERTS = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")


class Config:
    """The text part of a configuration, with what its family takes for keys that are absent."""

    def __init__(self, raw: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        text = raw.get("text_config")
        if text is not None and not isinstance(text, Mapping):
            raise Invalid(f"config.json: 'text_config' must be an object, not {shown(text)}")
        self._raw = raw
        self._text = text or raw
        self._defaults = defaults or {}

    def with_defaults(self, defaults: Mapping[str, Any]) -> Config:
        """The same configuration over other defaults."""
        return Config(self._raw, defaults)

    def get(self, key: str) -> Any:
        """The value in the text part, else beside it, else the family's; None when it is null or nowhere."""
        if key in self._text:
            return self._text[key]
        if key in self._raw:
            return self._raw[key]
        return self._defaults.get(key)

    def outer(self, key: str) -> Any:
        """The value at the top of config.json; None when it is null or absent."""
        return self._raw.get(key)

    def whole(self, *keys: str, default: int | None = None, least: int = 1, most: int = SIZE_LIMIT) -> int:
        """The first of `keys` that is given; without any, `default`, and Invalid where that is None."""
        for key in keys:
            value = self.get(key)
            if value is None:
                continue
            if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
                return value
            raise Invalid(f"config.json: '{key}' must be a whole number from {least} to {most:,}, not {shown(value)}")
        if default is None:
            raise Invalid(f"config.json: '{keys[0]}' is missing")
        return default

    def maybe(self, *keys: str) -> int | None:
        """As `whole`, and None without any."""
        return self.whole(*keys, least=0, default=0) or None

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false; `default` when it is null or absent."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise Invalid(f"config.json: '{key}' must be true or false, not {shown(value)}")
        return value

    def text(self, key: str, default: str = "") -> str:
        """A text; `default` when it is null or absent."""
        return text_of(self.get(key), key, default)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, one for each layer; () when it is null or absent."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > LAYER_LIMIT or not all(isinstance(each, str) for each in value):
            raise Invalid(f"config.json: '{key}' must be a list of at most {LAYER_LIMIT:,} texts, not {shown(value)}")
        return tuple(value)

    def wholes(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers; () when it is null or absent."""
        value = self.get(key)
        if value is None:
            return ()
        if (
            not isinstance(value, list)
            or len(value) > LAYER_LIMIT
            or not all(isinstance(each, int) and not isinstance(each, bool) for each in value)
        ):
            raise Invalid(f"config.json: '{key}' must be a list of whole numbers, not {shown(value)}")
        return tuple(value)

    def ids(self, key: str) -> tuple[int, ...]:
        """One token or several, ascending; () for anything else, since tokenizer.json has the last word on tokens."""
        value = self.get(key)
        given = value if isinstance(value, list) else [value]
        return tuple(sorted({each for each in given if isinstance(each, int) and not isinstance(each, bool)}))

    @property
    def family(self) -> str:
        """transformers' model_type of the text part, lower-cased; `unknown` without one."""
        return (text_of(self._text.get("model_type"), "model_type") or self.outer_family).lower()

    @property
    def outer_family(self) -> str:
        """The model_type at the top of config.json; `unknown` without one."""
        return text_of(self.outer("model_type"), "model_type", "unknown").lower()

    @property
    def architecture(self) -> str:
        """The class that the checkpoint names; without one where it came from, or `unknown`."""
        named = self.outer("architectures")
        if named is None or named == []:
            return text_of(self.outer("_name_or_path"), "_name_or_path") or "unknown"
        if not isinstance(named, list) or not isinstance(named[0], str):
            raise Invalid(f"config.json: 'architectures' must be a list of class names, not {shown(named)}")
        return text_of(named[0], "architectures")

    @property
    def quantization(self) -> Mapping[str, Any]:
        """`quantization_config`; empty for weights that are stored as they are."""
        value = self.outer("quantization_config") or self.get("quantization_config") or {}
        if not isinstance(value, Mapping):
            raise Invalid(f"config.json: 'quantization_config' must be an object, not {shown(value)}")
        return value

    @property
    def has_towers(self) -> bool:
        """Whether the checkpoint also sees or hears: its text part is not the whole of it."""
        return any(isinstance(self.outer(key), Mapping) for key in ("vision_config", "audio_config", "speech_config"))

    @property
    def layers(self) -> int:
        return self.whole(*LAYERS, most=LAYER_LIMIT)

    @property
    def hidden(self) -> int:
        return self.whole(*HIDDEN)

    @property
    def vocab(self) -> int:
        return self.whole("vocab_size")

    @property
    def heads(self) -> int:
        return self.whole(*HEADS)

    @property
    def kv_heads(self) -> int:
        """As many as there are heads, where the configuration does not group them."""
        return self.whole(*KV_HEADS, default=self.heads)

    @property
    def head_size(self) -> int:
        """Dimensions of a head; hidden_size / heads where the configuration does not say."""
        return self.whole("head_dim", default=self.hidden // self.heads)

    @property
    def ffn(self) -> int:
        return self.whole(*FFN)

    @property
    def experts(self) -> int:
        return self.whole(*EXPERTS, least=0, most=EXPERT_LIMIT)

    @property
    def tied(self) -> bool:
        """Whether the output head is the embedding."""
        return self.flag("tie_word_embeddings")

    @property
    def labels(self) -> int:
        """Classes of a classifier's head."""
        names = self.outer("id2label")
        if isinstance(names, Mapping) and names:
            return len(names)
        return self.whole("num_labels", default=2)


def text_of(value: Any, key: str, default: str = "") -> str:
    """`value` if it is a text, `default` if it is null; else Invalid names the key."""
    if value is None:
        return default
    if not isinstance(value, str):
        raise Invalid(f"config.json: '{key}' must be a text, not {shown(value)}")
    if any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in value):
        raise Invalid(f"config.json: '{key}' must be a text without NUL or lone surrogates, not {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value as a message can bear it."""
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    if isinstance(value, list | dict):
        return f"{type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
