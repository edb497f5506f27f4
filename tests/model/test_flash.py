"""The kernel for all rows at once is taken where a trial on the device shows that it is right, and nowhere else.

No GPU is at hand: where it matters a formula on the processor stands in for the kernel.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import varlen

from tunesmith.model import attention, flash
from tunesmith.model.attention import attend, bounds_of
from tunesmith.model.flash import attend_at_once, computes_rows

CPU = torch.device("cpu")
LENGTHS = (7, 30, 4, 4, 1)
SHAPE = 6, 2, 8
"""Query heads, key heads, size of a head."""


def formula(q_THD, k_TKD, v_TKD, starts, starts_of_keys, longest, longest_key, *, scale, window_size, enable_gqa):
    """What the kernel is documented to compute."""
    assert torch.equal(starts, starts_of_keys)
    assert starts.dtype == torch.int32
    assert longest == longest_key == int(starts.diff().max())
    assert window_size == (-1, 0)
    rows = zip(*(x.transpose(0, 1)[None].split(starts.diff().tolist(), 2) for x in (q_THD, k_TKD, v_TKD)), strict=True)
    parts = [
        functional.scaled_dot_product_attention(*row, is_causal=True, scale=scale, enable_gqa=enable_gqa)
        for row in rows
    ]
    return torch.cat(parts, 2)[0].transpose(0, 1)


def of_all_rows_together(q_THD, k_TKD, v_TKD, starts, _, longest, __, *, scale, window_size, enable_gqa):
    """A kernel that lets rows see each other."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q_THD, k_TKD, v_TKD))
    o = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=enable_gqa)
    return o[0].transpose(0, 1)


def of_half_the_gradient(q_THD, *given, **named):
    """A kernel that is right forward and wrong backward."""
    return formula((q_THD + q_THD.detach()) / 2, *given, **named)


def of_another_scale(*given, scale, **named):
    return formula(*given, scale=scale * 2, **named)


def that_is_not_made_for_this(*given, **named):
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")


@pytest.fixture
def on_the_processor(monkeypatch):
    """Lets the processor be tried too; call it with the kernel."""
    monkeypatch.setattr(flash, "DEVICES", ("cpu",))
    computes_rows.cache_clear()
    yield lambda kernel: monkeypatch.setattr(varlen, "varlen_attn", kernel)
    computes_rows.cache_clear()


def test_a_kernel_that_is_right_is_taken(on_the_processor):
    on_the_processor(formula)
    assert computes_rows(CPU, torch.bfloat16, *SHAPE)


@pytest.mark.parametrize(
    "kernel", [of_all_rows_together, of_half_the_gradient, of_another_scale, that_is_not_made_for_this]
)
def test_a_kernel_that_is_wrong_or_refuses_is_not(kernel, on_the_processor):
    on_the_processor(kernel)
    assert not computes_rows(CPU, torch.bfloat16, *SHAPE)


def test_torchs_own_refuses_a_processor(on_the_processor):
    assert not computes_rows(CPU, torch.bfloat16, *SHAPE)


def test_it_is_tried_in_half_precision_on_a_gpu_alone():
    assert not computes_rows(CPU, torch.bfloat16, *SHAPE)
    assert not computes_rows(torch.device("cuda", 0), torch.float32, *SHAPE)


def drawn(lengths=LENGTHS, dtype=torch.bfloat16, device="cpu"):
    heads, key_heads, size = SHAPE
    draw = torch.Generator().manual_seed(2)
    shapes = [(1, count, sum(lengths), size) for count in (heads, key_heads, key_heads)]
    return [torch.randn(shape, generator=draw).to(device, dtype).requires_grad_() for shape in shapes]


def test_a_pass_is_then_one_call_and_each_row_gets_what_it_gets_alone(on_the_processor):
    calls = []

    def counted(*given, **named):
        calls.append(len(given[3]) - 1)
        return formula(*given, **named)

    given, other = drawn(), drawn()
    expected, _ = attend(nn.Module(), *given, bounds_of(LENGTHS), scaling=0.3)
    on_the_processor(counted)
    computes_rows.cache_clear()
    found, _ = attend(nn.Module(), *other, bounds_of(LENGTHS), scaling=0.3)
    assert calls == [len(flash.TRIED_ROWS), len(LENGTHS)], "the trial, then the pass"
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    weight = torch.randn(expected.shape)
    gradients = [torch.autograd.grad((o * weight).sum(), x) for o, x in ((found, other), (expected, given))]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("lengths", "named"),
    [
        (LENGTHS, {"softcap": 3.0}),
        (LENGTHS, {"sliding_window": 29}),
        (LENGTHS, {"products": True}),
        (LENGTHS, {"s_aux": torch.zeros(SHAPE[0], dtype=torch.bfloat16)}),
        ((5, 5, 5), {}),
    ],
)
def test_what_it_does_not_know_and_rows_of_one_length_are_computed_as_ever(
    lengths, named, on_the_processor, monkeypatch
):
    on_the_processor(that_is_not_made_for_this)
    monkeypatch.setattr(attention, "computes_rows", lambda *_: True)
    attend(nn.Module(), *drawn(lengths), bounds_of(lengths), **named)
    with pytest.raises(RuntimeError, match="Ampere"):
        attend(nn.Module(), *drawn(), bounds_of(LENGTHS), sliding_window=30)


def test_torch_takes_the_call_and_its_gradients():
    """On the meta device, which knows shapes and types of what the kernel would be given."""
    q, k, v = given = drawn(device="meta")
    o_1THD = attend_at_once(*given, bounds_of(LENGTHS), 0.3)
    assert o_1THD.shape == (1, sum(LENGTHS), SHAPE[0], SHAPE[2])
    gradients = torch.autograd.grad(o_1THD, given, torch.empty_like(o_1THD))
    assert [x.shape for x in gradients] == [q.shape, k.shape, v.shape]


def test_in_float32_a_gpu_is_given_a_key_head_for_each_query_head(monkeypatch):
    """Or torch would hold the square of a row: its kernel for float32 knows no grouped heads."""
    asked = []

    def kernel(q, k, v, **named):
        asked.append((k.shape[1], v.shape[1], named["enable_gqa"]))
        return torch.empty_like(q)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", kernel)
    for dtype in (torch.float32, torch.bfloat16):
        attend(nn.Module(), *drawn((40, 40), dtype, "meta"), bounds_of((40, 40)))
    assert asked == [(6, 6, False), (2, 2, True)]
