"""Attention over a packed step: many rows' new tokens in one sequence, each row seeing its own past and nothing else.

A transformers model is asked to use it by name, and gets its `Step` as a keyword argument of the forward call.
Decoding rows come first, one token each, row i in cache slot i; then come prompts in parts ("prefills"), each of a row
of its own.

Shapes: T packed tokens, H query heads, G key-value heads, R = H / G, D head size, N decoding rows, L their longest past
with the new token, P tokens of a prefill, E its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tunesmith.errors import EngineError
from tunesmith.generate.cache import KeyValues, LayerShape

NAME = "tunesmith_packed"


@dataclass(frozen=True, slots=True)
class Prefill:
    """Part of a prompt: positions `start` .. `end` - 1 of the row in `slot`.

    Without a slot the row is forgotten after the step; its part must then be the whole prompt.
    """

    slot: int | None
    start: int
    end: int


@dataclass(slots=True)
class Step:
    """Which rows the packed tokens of one forward pass belong to."""

    cache: KeyValues | None
    lengths: Sequence[int]
    """Of the decoding rows, the new token included."""
    prefills: Sequence[Prefill]
    device: torch.device
    seen: dict[int, LayerShape] = field(default_factory=dict)
    """Filled in by each layer that attends."""
    _masks: dict[int | None, torch.Tensor | None] = field(default_factory=dict)
    _places: tuple[torch.Tensor, torch.Tensor] | None = None

    def positions(self) -> torch.Tensor:
        """[T] position in its row of each packed token."""
        ids = [length - 1 for length in self.lengths]
        for part in self.prefills:
            ids.extend(range(part.start, part.end))
        return torch.tensor(ids, device=self.device)

    def places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """[N] slot and [N] position that each decoding row's new token takes in the cache."""
        if self._places is None:
            last_N = torch.tensor(self.lengths, device=self.device) - 1
            self._places = torch.arange(len(self.lengths), device=self.device), last_N
        return self._places

    def decode_mask(self, window: int | None) -> torch.Tensor | None:
        """[N, 1, 1, L], true where a decoding row may look; None when every row may look everywhere."""
        if window not in self._masks:
            longest = max(self.lengths)
            if min(self.lengths) == longest and (window is None or longest <= window):
                self._masks[window] = None
            else:
                _, last_N = self.places()
                at_L = torch.arange(longest, device=self.device)
                mask_NL = at_L[None] <= last_N[:, None]
                if window is not None:
                    mask_NL &= at_L[None] > last_N[:, None] - window
                self._masks[window] = mask_NL[:, None, None]
        return self._masks[window]


def attend(
    module: nn.Module,
    query_1HTD: torch.Tensor,
    key_1GTD: torch.Tensor,
    value_1GTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,  # noqa: ARG001 - part of transformers' call; always 0 in eval mode
    sliding_window: int | None = None,
    step: Step | None = None,
    **rest: object,
) -> tuple[torch.Tensor, None]:
    """Write the step's keys and values into the cache, attend, and return [1, T, H, D]."""
    if step is None or attention_mask is not None:
        raise EngineError(f"{type(module).__name__} does not pass the packed step on to its attention")
    for name in ("softcap", "s_aux", "position_bias"):
        if rest.get(name) is not None:
            raise EngineError(f"{type(module).__name__} needs attention with `{name}`, which is not built yet")
    layer: int = module.layer_idx
    _, heads, tokens, size = query_1HTD.shape
    step.seen[layer] = LayerShape(key_1GTD.shape[1], size, value_1GTD.shape[-1])
    out_THD = query_1HTD.new_empty(tokens, heads, value_1GTD.shape[-1])
    rows = len(step.lengths)
    if rows:
        out_THD[:rows] = _decode(
            step,
            layer,
            query_1HTD[0, :, :rows],
            key_1GTD[0, :, :rows],
            value_1GTD[0, :, :rows],
            scaling,
            sliding_window,
        )
    begin = rows
    for part in step.prefills:
        span = slice(begin, begin + part.end - part.start)
        query, key, value = query_1HTD[:, :, span], key_1GTD[:, :, span], value_1GTD[:, :, span]
        out_THD[span] = _prefill(step, layer, part, query, key, value, scaling, sliding_window)
        begin = span.stop
    return out_THD[None], None


def _decode(
    step: Step,
    layer: int,
    query_HND: torch.Tensor,
    key_GND: torch.Tensor,
    value_GND: torch.Tensor,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """[N, H, D] of one new token per row. The R query heads of a key head act as R queries, so no key is copied."""
    assert step.cache is not None
    keys, values = step.cache.keys[layer], step.cache.values[layer]
    slots_N, last_N = step.places()
    keys[slots_N, :, last_N] = key_GND.transpose(0, 1)
    values[slots_N, :, last_N] = value_GND.transpose(0, 1)
    heads, rows, size = query_HND.shape
    groups, longest = keys.shape[1], max(step.lengths)
    query_NGRD = query_HND.transpose(0, 1).reshape(rows, groups, heads // groups, size)
    out_NGRD = scaled_dot_product_attention(
        query_NGRD,
        keys[:rows, :, :longest],
        values[:rows, :, :longest],
        attn_mask=step.decode_mask(window),
        scale=scaling,
    )
    return out_NGRD.reshape(rows, heads, -1)


def _prefill(
    step: Step,
    layer: int,
    part: Prefill,
    query_1HPD: torch.Tensor,
    key_1GPD: torch.Tensor,
    value_1GPD: torch.Tensor,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """[P, H, D] of a part of a prompt."""
    if part.slot is not None:
        assert step.cache is not None
        keys, values = step.cache.keys[layer], step.cache.values[layer]
        keys[part.slot, :, part.start : part.end] = key_1GPD[0]
        values[part.slot, :, part.start : part.end] = value_1GPD[0]
        if part.start:
            key_1GPD = keys[part.slot : part.slot + 1, :, : part.end]
            value_1GPD = values[part.slot : part.slot + 1, :, : part.end]
    mask = None
    if part.start or (window is not None and part.end > window):
        mask = _prefill_mask(part, window, step.device)
    repeat = query_1HPD.shape[1] // key_1GPD.shape[1]
    out_1HPD = scaled_dot_product_attention(
        query_1HPD,
        key_1GPD.repeat_interleave(repeat, 1) if repeat > 1 else key_1GPD,
        value_1GPD.repeat_interleave(repeat, 1) if repeat > 1 else value_1GPD,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
    )
    return out_1HPD[0].transpose(0, 1)


def _prefill_mask(part: Prefill, window: int | None, device: torch.device) -> torch.Tensor:
    """[P, E], true where a token may look: its own past, at most `window` positions with itself."""
    at_P = torch.arange(part.start, part.end, device=device)[:, None]
    at_E = torch.arange(part.end, device=device)[None]
    mask_PE = at_E <= at_P
    return mask_PE if window is None else mask_PE & (at_E > at_P - window)


AttentionInterface.register(NAME, attend)
