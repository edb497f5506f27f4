"""Whether the rows of a pass leave each other alone in a model, and which of its rows may share one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from tunesmith.errors import EngineError
from tunesmith.model.attention import bounds_of
from tunesmith.model.head import AGREEMENT, hidden_states

_BEFORE, _BEHIND = 4, 5
"""Tokens of the two rows of a trial."""
_LENGTH_DEPENDENT = ("dynamic", "longrope")


def layout_of(model: nn.Module) -> Literal["flat", "padded"]:
    """How rows can go through a model that computes attention by rows, as a trial on two short ones shows.

    flat = a row gets the same numbers behind another one as alone; padded = something but attention carries a state
    from token to token, or attention is cut in a way that `attend` does not know, so each row needs a place of its own
    in the batch. EngineError if not even that keeps what follows a row from changing it.
    """
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(0)
    ids_1T = torch.randint(model.get_input_embeddings().num_embeddings, (1, _BEFORE + _BEHIND), generator=draw)
    first, second = ids_1T.to(device).split([_BEFORE, _BEHIND], 1)
    with torch.no_grad():
        alone = hidden_states(model, second)
        kinds = set(getattr(model.config, "layer_types", None) or ())
        if kinds <= {"full_attention", "sliding_attention"}:
            flat = hidden_states(model, torch.cat([first, second], 1), bounds_of([_BEFORE, _BEHIND]))
            if _agree(flat[:, _BEFORE:], alone):
                return "flat"
        padded = hidden_states(model, torch.cat([second, first], 1))
    if not _agree(padded[:, :_BEHIND], alone):
        raise EngineError(
            f"{type(model).__name__} lets a token see those behind it; this family cannot be trained",
            "TrainingConfigError",
        )
    return "padded"


def longest_shared(model: nn.Module) -> int | None:
    """Tokens of the longest row that may share a pass; None = any may.

    Longer ones change the rotary embedding of all that is in the pass with them.
    """
    rope = length_dependent_rope(model.config)
    if rope is None:
        return None
    return int(rope.get("original_max_position_embeddings") or model.config.max_position_embeddings)


def length_dependent_rope(config: Any) -> dict[str, Any] | None:
    """What a configuration says of a rotary embedding that changes with the longest sequence in a pass; None = no such.

    `rope_parameters` are those of all layers, or some for each kind of layer.
    """
    found = getattr(config, "rope_parameters", None) or {}
    each = [rope for rope in (found, *found.values()) if isinstance(rope, dict)]
    return next((rope for rope in each if rope.get("rope_type") in _LENGTH_DEPENDENT), None)


def _agree(a_BTH: Tensor, b_BTH: Tensor) -> bool:
    return float((a_BTH - b_BTH).abs().max()) <= AGREEMENT[a_BTH.dtype] * float(b_BTH.abs().max())
