"""Frozen norms give transformers' numbers and autograd's gradients, or are left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.families import tiny
from tests.models import tiny_llama
from tunesmith.model.load import load_model
from tunesmith.model.norms import FrozenNorm, write_out_norms


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_a_model_with_written_out_norms_answers_the_same(tmp_path, compute):
    tiny_llama(tmp_path)
    model = load_model(tmp_path, compute, "eager", torch.device("cpu"))
    ids = torch.arange(40)[None]
    with torch.no_grad():
        expected = model(ids).logits
        assert write_out_norms(model) == 5
        found = model(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_norms_that_are_held_in_another_type_than_the_model_give_what_they_gave(tmp_path):
    tiny("gpt_oss", tmp_path)
    model = load_model(tmp_path, "fp16", "eager", torch.device("cpu"))
    x = torch.randn(3, 32).half()
    expected = model.model.norm(x)
    write_out_norms(model)
    found = model.model.norm(x)
    assert found.dtype == expected.dtype == torch.float16
    torch.testing.assert_close(found, expected)


def test_the_gradient_is_that_of_the_formula():
    norm = FrozenNorm(nn.Parameter(torch.rand(6, dtype=torch.float64), requires_grad=False), 1e-3)
    x = torch.randn(3, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, x)


def test_a_norm_of_another_kind_is_left_alone():
    class ShiftedRMSNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.zeros(4)), 1e-6

        def forward(self, x):
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * (1 + self.weight)

    model = nn.Sequential(ShiftedRMSNorm())
    assert write_out_norms(model) == 0
    assert isinstance(model[0], ShiftedRMSNorm)
