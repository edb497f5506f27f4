"""Attention by rows is the formula of each family on each row alone, forward and backward, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.models import tiny_llama
from tunesmith.errors import EngineError
from tunesmith.model import attention
from tunesmith.model.attention import attend, attend_by_products, attend_by_rows, bounds_of
from tunesmith.model.load import load_model

CPU = torch.device("cpu")
SCALE = 0.3
SHORT, MIXED = (5, 5, 3, 1), (50, 30, 30, 7)
WHOLE, CHUNK = 16, 7


@pytest.mark.parametrize("function", [attend, attend_by_products])
@pytest.mark.parametrize("lengths", [SHORT, MIXED])
@pytest.mark.parametrize("window", [None, 4, 20])
@pytest.mark.parametrize(
    ("softcap", "sinks", "value_size"),
    [(None, False, 4), (None, False, 6), (3.0, False, 4), (None, True, 4), (2.0, True, 6)],
)
def test_each_row_gets_what_the_formula_gives_it_alone(
    function, lengths, window, softcap, sinks, value_size, monkeypatch
):
    monkeypatch.setattr(attention, "LONGEST", WHOLE)
    monkeypatch.setattr(attention, "CHUNK", CHUNK)
    draw = torch.Generator().manual_seed(1)

    def drawn(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=draw).requires_grad_(True)

    tokens = sum(lengths)
    given = [drawn(1, 6, tokens, 4), drawn(1, 2, tokens, 4), drawn(1, 2, tokens, value_size)]
    sink = drawn(6) if sinks else None
    named = {"scaling": SCALE, "sliding_window": window, "softcap": softcap, "s_aux": sink}
    found, _ = function(nn.Module(), *given, bounds_of(lengths), **named)
    expected = torch.cat(
        [by_formula(*row, window, softcap, sink) for row in zip(*(x.split(lengths, 2) for x in given), strict=True)], 1
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weight = torch.randn(expected.shape, dtype=torch.float64, generator=draw)
    learned = given if sink is None else [*given, sink]
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), learned),
        torch.autograd.grad((expected * weight).sum(), learned),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def by_formula(q_1HtD, k_1KtD, v_1KtE, window, softcap, sinks_H):
    """o_1tHE of one row, written down as the papers have it."""
    heads, tokens = q_1HtD.shape[1:3]
    k, v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k_1KtD, v_1KtE))
    scores = q_1HtD @ k.mT * SCALE
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    place = torch.arange(tokens)
    back = place[:, None] - place
    seen = (back >= 0) & (back < (window or tokens))
    weights = scores.masked_fill(~seen, -math.inf).exp()
    total = weights.sum(-1, keepdim=True)
    if sinks_H is not None:
        total = total + sinks_H.exp()[None, :, None, None]
    return (weights / total @ v).transpose(1, 2)


def test_a_batch_of_padded_rows_is_the_same_as_the_rows_one_behind_the_other():
    q, k, v = (torch.randn(3, heads, 7, 4, generator=torch.Generator().manual_seed(heads)) for heads in (4, 2, 2))
    flat = [x.transpose(0, 1).flatten(1, 2)[None] for x in (q, k, v)]
    padded, _ = attend(nn.Module(), q, k, v, None)
    behind, _ = attend(nn.Module(), *flat, bounds_of([7, 7, 7]))
    torch.testing.assert_close(padded.flatten(0, 1)[None], behind)


@pytest.mark.parametrize("tokens", [2, 33, 255, 300])
def test_bf16_stays_as_near_to_float32_as_torchs_kernel_does(tokens):
    draw = torch.Generator().manual_seed(tokens)
    exact = [torch.randn(1, heads, tokens, 32, generator=draw) for heads in (6, 2, 2)]
    rounded = [x.bfloat16().requires_grad_(True) for x in exact]

    def apart(o_BTHD, reference_BTHD):
        return float((o_BTHD.detach().float() - reference_BTHD).norm() / reference_BTHD.norm())

    reference, _ = attend_by_products(nn.Module(), *(x.detach().float() for x in rounded), None)
    kernel = nn.functional.scaled_dot_product_attention(*rounded, is_causal=True, enable_gqa=True).transpose(1, 2)
    ours, _ = attend_by_products(nn.Module(), *rounded, None)
    assert apart(ours, reference) < max(2 * apart(kernel, reference), 0.01)


@pytest.mark.parametrize("asked", ["sdpa", "eager"])
def test_masks_of_others_are_obeyed_and_a_cache_can_be_used(tmp_path, asked):
    tiny_llama(tmp_path)
    ids = torch.randint(3, 300, (2, 20), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    model = load_model(tmp_path, "fp32", "eager", CPU)

    def answers():
        with torch.no_grad():
            said = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
            return said, model(ids, attention_mask=mask).logits

    expected_ids, expected = answers()
    attend_by_rows(model, asked)
    found_ids, found = answers()
    assert torch.equal(found_ids, expected_ids)
    torch.testing.assert_close(found[0, 7:], expected[0, 7:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-4)


def test_what_is_not_causal_or_drops_is_refused():
    q, k, v = (torch.randn(1, 2, 3, 4) for _ in range(3))
    with pytest.raises(EngineError, match="dropout"):
        attend(nn.Module(), q, k, v, None, dropout=0.1)
    encoder = nn.Module()
    encoder.is_causal = False
    with pytest.raises(EngineError, match="only causal attention"):
        attend(encoder, q, k, v, None)
