"""Attention for training, row by row: no row of a pass sees another one, and no [T, T] over a pass is ever held.

A pass is flat (one long sequence of rows, told apart by `bounds`) or padded on the right. `attend` is registered with
transformers, so the model code stays unmodified; `bounds` takes the place of the 4-D mask, which transformers hands
from the model to every attention layer as it is.

Torch's kernel computes what it can: causal attention over rows that are not short. Everything else (sliding windows,
capped scores, sinks, value heads of another size, short rows on a CPU) are explicit products, in chunks of queries.
Measured in bf16 on one AVX-512/AMX core, 8 rows of 119 tokens, 9 heads over 3 key heads of 64: forward and backward of
scaled_dot_product_attention take 29 ms, the four batched products below 6.5 ms; they break even near 400 tokens.

Shapes: B rows of t tokens each, T tokens of a pass, H query heads, K key heads, G = H / K query heads of one key head,
D size of a query and key head, E of a value head, P = B * K pairs, q queries of a chunk, s keys they may see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunesmith.errors import EngineError
from tunesmith.handoff.plan import Attention
from tunesmith.model.flash import attend_at_once, computes_rows

KERNEL, PRODUCTS = "tunesmith_kernel", "tunesmith_products"
LONGEST = 256
"""Tokens of a row up to which the explicit products win on a CPU, in bf16 and in fp32, and probabilities are kept."""
CHUNK = 64
"""Queries of a chunk of a longer row. Little is computed above the diagonal then, and what is stays in the cache: one
row of 800 tokens with a window of 256, 32 heads over 8, takes 130 ms in fp32, in chunks of 128 164 ms, of 256 233."""

BOUNDS = torch.int64
WITHOUT_EFFECT = frozenset(
    {"position_ids", "use_cache", "output_attentions", "output_hidden_states", "output_router_logits", "cache_position"}
    | {"is_causal", "position_embeddings", "logits_to_keep", "layer_type"}
)
"""What transformers hands to attention functions that changes no number."""


@dataclass(frozen=True, slots=True)
class Rule:
    """scores = softcap * tanh(scale * q k / softcap) where keys are at most `window` - 1 tokens back; 0 = no cap."""

    scale: float
    window: int | None
    softcap: float


def attend_by_rows(model: nn.Module, attention: Attention) -> None:
    """Let a transformers model compute attention by `attend`; "eager" = explicit products throughout."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    name, function = (KERNEL, attend) if attention == "sdpa" else (PRODUCTS, attend_by_products)
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)


def attend(
    module: nn.Module,
    q_BHTD: Tensor,
    k_BKTD: Tensor,
    v_BKTE: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    dropout: float = 0.0,
    products: bool = False,
    **others: Any,
) -> tuple[Tensor, None]:
    """o_BTHE, causal within each row; `attention_mask` is None (B rows of T tokens), bounds, or a mask to obey."""
    if dropout:
        raise EngineError(f"attention dropout ({dropout:g}) is not drawn by this engine: 0 is the only value")
    if not getattr(module, "is_causal", True):
        raise EngineError(f"{type(module).__name__} looks at later tokens; only causal attention is trained")
    if unknown := {name for name, value in others.items() if value is not None} - WITHOUT_EFFECT:
        raise EngineError(f"{type(module).__name__} computes attention with {min(unknown)}, which is not known here")
    scale = q_BHTD.shape[-1] ** -0.5 if scaling is None else scaling
    rule = Rule(scale, sliding_window, softcap or 0.0)
    if attention_mask is not None and attention_mask.dtype == BOUNDS:
        parts = []
        sizes = _runs(attention_mask.flatten().tolist())
        if len(sizes) > 1 and _at_once(q_BHTD, k_BKTD, v_BKTE, s_aux, rule, products, max(n for _, n in sizes)):
            return attend_at_once(q_BHTD, k_BKTD, v_BKTE, attention_mask, scale), None
        cuts = [rows * tokens for rows, tokens in sizes]
        for (rows, _), *parts_1HxD in zip(sizes, *(x.split(cuts, 2) for x in (q_BHTD, k_BKTD, v_BKTE)), strict=True):
            q, k, v = (x.unflatten(2, (rows, -1)).squeeze(0).transpose(0, 1) for x in parts_1HxD)
            parts.append(_rows(q, k, v, s_aux, rule, products).transpose(1, 2).flatten(0, 1))
        return torch.cat(parts)[None], None
    if attention_mask is None and q_BHTD.shape[2] == k_BKTD.shape[2]:
        return _rows(q_BHTD, k_BKTD, v_BKTE, s_aux, rule, products).transpose(1, 2), None
    return _masked(q_BHTD, k_BKTD, v_BKTE, attention_mask, s_aux, rule).transpose(1, 2), None


def attend_by_products(*given: Any, **named: Any) -> tuple[Tensor, None]:
    """`attend` without torch's kernel."""
    return attend(*given, products=True, **named)


def bounds_of(lengths: Sequence[int]) -> Tensor:
    """bounds of a flat pass: where each row starts and the total, int64 [1, 1, 1, rows + 1], on the CPU.

    Masks are boolean or floating, so the type tells them apart. On the CPU, since every layer reads it: from a GPU each
    look would wait for all that was queued.
    """
    return torch.tensor([0, *lengths]).cumsum(0)[None, None, None]


def _runs(bounds: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring rows of one length: (how many, their tokens)."""
    lengths = [end - start for start, end in pairwise(bounds)]
    return [(len(list(same)), tokens) for tokens, same in groupby(lengths)]


def _rows(q_BHtD: Tensor, k_BKtD: Tensor, v_BKtE: Tensor, sinks_H: Tensor | None, rule: Rule, products: bool) -> Tensor:
    """o_BHtE of rows of one length."""
    tokens, on_cpu = q_BHtD.shape[2], q_BHtD.device.type == "cpu"
    if _is_plain(q_BHtD, v_BKtE, sinks_H, rule, products, tokens) and (not on_cpu or tokens > LONGEST):
        groups = q_BHtD.shape[1] // k_BKtD.shape[1]
        if groups > 1 and not on_cpu and q_BHtD.dtype == torch.float32:
            # Of a GPU's kernels none has grouped heads in float32: torch would hold [t, t] of all heads.
            k_BKtD, v_BKtE = (x.repeat_interleave(groups, 1) for x in (k_BKtD, v_BKtE))
        return functional.scaled_dot_product_attention(
            q_BHtD,
            k_BKtD,
            v_BKtE,
            is_causal=True,
            scale=rule.scale,
            enable_gqa=q_BHtD.shape[1] != k_BKtD.shape[1],
        )
    o_BHtE: Tensor = _Products.apply(q_BHtD, k_BKtD, v_BKtE, sinks_H, rule)
    return o_BHtE


def _is_plain(q_BHtD: Tensor, v_BKtE: Tensor, sinks_H: Tensor | None, rule: Rule, products: bool, tokens: int) -> bool:
    """Can torch's kernels compute rows of at most so many tokens?"""
    windowed = rule.window is not None and rule.window < tokens
    return not (products or windowed or rule.softcap or sinks_H is not None or v_BKtE.shape[3] != q_BHtD.shape[3])


def _at_once(
    q_1HTD: Tensor,
    k_1KTD: Tensor,
    v_1KTE: Tensor,
    sinks_H: Tensor | None,
    rule: Rule,
    products: bool,
    longest: int,
) -> bool:
    """Is there a kernel for all rows of a flat pass, and one that is right?"""
    _, heads, _, size = q_1HTD.shape
    return _is_plain(q_1HTD, v_1KTE, sinks_H, rule, products, longest) and computes_rows(
        q_1HTD.device, q_1HTD.dtype, heads, k_1KTD.shape[1], size
    )


class _Products(torch.autograd.Function):
    """softmax(scores) V in chunks of queries, with the query heads of one key head stacked, so keys are never repeated.

    A sink is a key of zeros whose score is set and whose value is zero: forward and backward then need no case of
    their own. One chunk keeps its probabilities for the backward pass; of more, they are computed again.
    """

    @staticmethod
    def forward(ctx: Any, q_BHtD: Tensor, k_BKtD: Tensor, v_BKtE: Tensor, sinks_H: Tensor | None, rule: Rule) -> Tensor:
        rows, heads, tokens, _ = q_BHtD.shape
        pairs = rows * k_BKtD.shape[1]
        q_PGtD = q_BHtD.reshape(pairs, -1, tokens, q_BHtD.shape[-1])
        k_PtD, v_PtE = (x.reshape(pairs, tokens, -1) for x in (k_BKtD, v_BKtE))
        parts, kept = [], None
        for chunk in _chunks(tokens, rule):
            kept, _ = _probabilities(q_PGtD, k_PtD, sinks_H, rule, chunk)
            parts.append(torch.bmm(kept, _with_sink(v_PtE, sinks_H, chunk)).unflatten(1, (heads * rows // pairs, -1)))
        ctx.rule, ctx.shapes = rule, (q_BHtD.shape, k_BKtD.shape, v_BKtE.shape)
        ctx.save_for_backward(q_PGtD, k_PtD, v_PtE, sinks_H, kept if len(parts) == 1 and not rule.softcap else None)
        out_PGtE = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
        return out_PGtE.view(rows, heads, tokens, -1)

    @staticmethod
    def backward(ctx: Any, grad_BHtE: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None]:
        q_PGtD, k_PtD, v_PtE, sinks_H, kept = ctx.saved_tensors
        given = (q_PGtD, k_PtD, v_PtE, sinks_H)
        grad_PGtE = grad_BHtE.reshape(*q_PGtD.shape[:3], -1)
        d_sinks = None if sinks_H is None else torch.zeros_like(sinks_H)
        chunks = _chunks(q_PGtD.shape[2], ctx.rule)
        if len(chunks) == 1:
            d_q, d_k, d_v = _gradients(*given, grad_PGtE, d_sinks, kept, ctx.rule, chunks[0])
        else:
            d_q, d_k, d_v = torch.empty_like(q_PGtD), torch.zeros_like(k_PtD), torch.zeros_like(v_PtE)
            for mine, seen in chunks:
                part_q, part_k, part_v = _gradients(*given, grad_PGtE, d_sinks, None, ctx.rule, (mine, seen))
                d_q[:, :, mine] = part_q
                d_k[:, seen] += part_k
                d_v[:, seen] += part_v
        q_shape, k_shape, v_shape = ctx.shapes
        return d_q.view(q_shape), d_k.view(k_shape), d_v.view(v_shape), d_sinks, None


def _gradients(
    q_PGtD: Tensor,
    k_PtD: Tensor,
    v_PtE: Tensor,
    sinks_H: Tensor | None,
    grad_PGtE: Tensor,
    d_sinks_H: Tensor | None,
    kept: Tensor | None,
    rule: Rule,
    chunk: tuple[slice, slice],
) -> tuple[Tensor, Tensor, Tensor]:
    """d_PGqD, d_PsD, d_PsE of a chunk; what it adds to the sinks' gradient is added there."""
    mine, seen = chunk
    groups = q_PGtD.shape[1]
    p, slope = (kept, None) if kept is not None else _probabilities(q_PGtD, k_PtD, sinks_H, rule, chunk)
    grad_PqE = grad_PGtE[:, :, mine].flatten(1, 2)
    d_p = torch.bmm(grad_PqE, _with_sink(v_PtE, sinks_H, chunk).mT)
    d_s = torch._softmax_backward_data(d_p, p, -1, p.dtype)  # noqa: SLF001 - p (d_p - sum(d_p p))
    if d_sinks_H is not None:
        d_sinks_H += d_s[..., -1].unflatten(1, (groups, -1)).sum(-1).view(-1, len(d_sinks_H)).sum(0)
        p, d_s = p[..., :-1], d_s[..., :-1]
    if slope is not None:
        d_s *= slope
    d_s *= rule.scale
    d_q = torch.bmm(d_s, k_PtD[:, seen]).unflatten(1, (groups, -1))
    return d_q, torch.bmm(d_s.mT, q_PGtD[:, :, mine].flatten(1, 2)), torch.bmm(p.mT, grad_PqE)


def _chunks(tokens: int, rule: Rule) -> list[tuple[slice, slice]]:
    """The queries of each chunk and the keys that any of them may see."""
    size = tokens if tokens <= LONGEST else CHUNK
    firsts = range(0, tokens, size)
    ends = [min(first + size, tokens) for first in firsts]
    seen = [0 if rule.window is None else max(0, first - rule.window + 1) for first in firsts]
    return [(slice(a, b), slice(lowest, b)) for a, b, lowest in zip(firsts, ends, seen, strict=True)]


def _probabilities(
    q_PGtD: Tensor, k_PtD: Tensor, sinks_H: Tensor | None, rule: Rule, chunk: tuple[slice, slice]
) -> tuple[Tensor, Tensor | None]:
    """p_P(Gq)s of a chunk, the sink's behind the keys', and the slope of the cap where there is one."""
    mine, seen = chunk
    slope = None
    scores = torch.bmm(q_PGtD[:, :, mine].flatten(1, 2), _with_sink(k_PtD, sinks_H, chunk).mT).mul_(rule.scale)
    if rule.softcap:
        ratio = scores.div_(rule.softcap).tanh_()
        slope = (1 - ratio.square())[..., : seen.stop - seen.start]
        scores = ratio * rule.softcap
    scores = scores.unflatten(1, (q_PGtD.shape[1], -1))
    scores[..., : seen.stop - seen.start] += _hidden(scores, rule, chunk)
    if sinks_H is not None:
        scores[..., -1] = sinks_H.view(-1, q_PGtD.shape[1], 1).repeat(
            len(scores) * scores.shape[1] // len(sinks_H), 1, 1
        )
    return scores.softmax(-1).flatten(1, 2), slope


def _hidden(like: Tensor, rule: Rule, chunk: tuple[slice, slice]) -> Tensor:
    """-inf_qs where the key comes after the query, or lies before its window; else 0."""
    mine, seen = chunk
    ahead = mine.start - seen.start
    never = like.new_full((mine.stop - mine.start, seen.stop - seen.start), -torch.inf)
    hidden = never.triu(1 + ahead)
    return hidden if rule.window is None else hidden.add_(never.tril_(ahead - rule.window))


def _with_sink(x_PtD: Tensor, sinks_H: Tensor | None, chunk: tuple[slice, slice]) -> Tensor:
    """The chunk's keys or values, with one of zeros behind them for the sink."""
    x_PsD = x_PtD[:, chunk[1]]
    return x_PsD if sinks_H is None else functional.pad(x_PsD, (0, 0, 0, 1))


def _masked(
    q_BHTD: Tensor, k_BKSD: Tensor, v_BKSE: Tensor, mask: Tensor | None, sinks_H: Tensor | None, rule: Rule
) -> Tensor:
    """o_BHTE under a mask that is boolean (True = seen) or added; None = all S keys are seen, as by a decoded token."""
    groups = q_BHTD.shape[1] // k_BKSD.shape[1]
    k_BHSD, v_BHSE = (x.repeat_interleave(groups, 1) for x in (k_BKSD, v_BKSE))
    scores = q_BHTD @ k_BHSD.mT * rule.scale
    if rule.softcap:
        scores = torch.tanh(scores / rule.softcap) * rule.softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
    if sinks_H is not None:
        sinks = sinks_H.view(1, -1, 1, 1).expand(len(scores), -1, scores.shape[2], 1)
        return torch.cat([scores, sinks.to(scores.dtype)], -1).softmax(-1)[..., :-1] @ v_BHSE
    return scores.softmax(-1) @ v_BHSE
