"""All rows of a flat pass by one call of torch's FlashAttention kernel, where a trial shows that it computes them.

Row by row, a GPU gets a call for each run of rows of one length, in each layer, and more backward: it would wait for
the processor to make them.

Shapes: T tokens of a pass, H query heads, K key heads, D size of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional

from tunesmith.model.head import AGREEMENT

DEVICES, TYPES = ("cuda",), (torch.bfloat16, torch.float16)
TRIED_ROWS = (5, 130, 1, 64)
"""Tokens of the rows of the trial; one is longer than a block of the kernel."""


def attend_at_once(q_1HTD: Tensor, k_1KTD: Tensor, v_1KTD: Tensor, bounds: Tensor, scale: float) -> Tensor:
    """o_1THD, causal within each row; `bounds` as `attention.bounds_of` makes them."""
    from torch.nn.attention.varlen import varlen_attn  # here, because it takes seconds to import and few need it

    starts = bounds.flatten().to(q_1HTD.device, torch.int32, non_blocking=True)
    longest = int(bounds.flatten().diff().max())
    o_THD: Tensor = varlen_attn(
        *(x.squeeze(0).transpose(0, 1) for x in (q_1HTD, k_1KTD, v_1KTD)),  # x[0] would fill zeros backward
        *(starts, starts, longest, longest),
        scale=scale,
        window_size=(-1, 0),  # nothing that comes later
        enable_gqa=q_1HTD.shape[1] != k_1KTD.shape[1],
    )
    return o_THD[None]


@cache
def computes_rows(device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, size: int) -> bool:
    """Does `attend_at_once` give each row what it gets alone, and its gradients, on this device? Tried once."""
    if device.type not in DEVICES or dtype not in TYPES:
        return False
    draw = torch.Generator().manual_seed(0)
    tokens = sum(TRIED_ROWS)
    shapes = [(1, heads, tokens, size), *[(1, key_heads, tokens, size)] * 2, (1, tokens, heads, size)]
    q, k, v, d_o = (torch.randn(shape, generator=draw).to(device, dtype) for shape in shapes)
    bounds = torch.tensor([0, *TRIED_ROWS]).cumsum(0)
    try:
        found = _with_gradients(partial(attend_at_once, bounds=bounds, scale=size**-0.5), q, k, v, d_o)
    except (ImportError, RuntimeError):  # an older torch, a GPU that the kernel is not made for
        return False
    expected = _with_gradients(_one_by_one, q.float(), k.float(), v.float(), d_o.float())
    return all(
        float((ours - theirs).abs().max()) <= AGREEMENT[dtype] * float(theirs.abs().max())
        for ours, theirs in zip(found, expected, strict=True)
    )


def _with_gradients(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor, d_o: Tensor
) -> list[Tensor]:
    given = q.requires_grad_(), k.requires_grad_(), v.requires_grad_()
    with torch.enable_grad():
        o = attend(*given)
        return [o.detach(), *torch.autograd.grad(o, given, d_o)]


def _one_by_one(q_1HTD: Tensor, k_1KTD: Tensor, v_1KTD: Tensor) -> Tensor:
    """o_1THD, each row by itself."""
    rows = zip(*(x.split(TRIED_ROWS, 2) for x in (q_1HTD, k_1KTD, v_1KTD)), strict=True)
    found = [functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True) for q, k, v in rows]
    return torch.cat(found, 2).transpose(1, 2)
