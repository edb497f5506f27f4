"""Every family: rows behind one another get the numbers of each row alone in transformers' own model; none leaks."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tests.families import FAMILIES, WINDOW, as_mxfp4, tiny
from tunesmith.errors import EngineError
from tunesmith.model.attention import attend_by_rows, bounds_of
from tunesmith.model.head import Head, check, hidden_states
from tunesmith.model.load import load_model
from tunesmith.model.sharing import layout_of, longest_shared
from tunesmith.planning.facts import facts
from tunesmith.planning.headers import read_header

CPU = torch.device("cpu")
LENGTHS = (20, 13, 13, 5)
"""The longest is more than twice the window."""
HYBRIDS = {"nemotron_h"}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    tiny(request.param, directory)
    return request.param, directory


def loaded(directory, attention="sdpa", by_rows=True):
    model = load_model(directory, "fp32", attention, CPU)
    if by_rows:
        attend_by_rows(model, attention)
    return model


def drawn(seed):
    return torch.randint(3, 300, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(seed))


def gradients(model, hidden_BTH):
    """Of every weight, for a loss that weighs each place and channel differently."""
    weight = torch.linspace(-1, 1, hidden_BTH.numel()).view(hidden_BTH.shape).cos()
    weights = [weight for weight in model.base_model.parameters() if weight.requires_grad]
    return torch.autograd.grad((hidden_BTH * weight).sum(), weights, allow_unused=True)


def agree(found, expected):
    """Within a few roundings of the largest value."""
    found, expected = found.detach(), expected.detach()
    assert float((found - expected).abs().max()) <= 2e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_get_what_they_get_alone_forward_and_backward(family, attention):
    name, directory = family
    ids = drawn(1)
    theirs = loaded(directory, "eager", by_rows=False).requires_grad_(True)
    alone = [theirs.base_model(input_ids=row, use_cache=False).last_hidden_state for row in ids.split(LENGTHS, 1)]
    expected = torch.cat(alone, 1)
    ours = loaded(directory, attention).requires_grad_(True)
    assert layout_of(ours) == ("padded" if name in HYBRIDS else "flat")
    if name in HYBRIDS:
        rows = nn.utils.rnn.pad_sequence([row[0] for row in ids.split(LENGTHS, 1)], batch_first=True)
        padded = hidden_states(ours, rows)
        found = torch.cat([row[:length] for row, length in zip(padded, LENGTHS, strict=True)])[None]
    else:
        found = hidden_states(ours, ids, bounds_of(LENGTHS))
    agree(found, expected)
    for mine, other in zip(gradients(ours, found), gradients(theirs, expected), strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            agree(mine, other)


def test_no_row_sees_the_one_before_it(family):
    name, directory = family
    model, bounds = loaded(directory), bounds_of(LENGTHS)
    first, others = drawn(1), drawn(1)
    others[:, : LENGTHS[0]] = drawn(2)[:, : LENGTHS[0]]
    with torch.no_grad():
        apart = (hidden_states(model, first, bounds) - hidden_states(model, others, bounds)).abs().amax((0, 2))
    assert apart[: LENGTHS[0]].max() > 0.01
    leaks = bool(apart[LENGTHS[0] :].max() > 1e-5)
    assert leaks == (name in HYBRIDS)  # which is why those are padded


def test_the_head_is_the_models(family):
    model = loaded(family[1])
    check(model, Head.of(model), drawn(1)[0, :20])


def test_what_can_be_adapted_and_counted_is_what_was_loaded(family):
    _, directory = family
    config = json.loads((directory / "config.json").read_text())
    with (directory / "model.safetensors").open("rb") as file:
        tensors = read_header(file.read(1 << 20), "model.safetensors")
    model = loaded(directory)
    for told in (facts(config, tensors), facts(config, None)):
        assert told.parameters == sum(weight.numel() for weight in model.parameters())
        head = model.get_output_embeddings()
        modules = {
            name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head
        }
        apart = (".gate", ".router", ".shared_expert_gate", ".mixer.out_proj")  # PEFT takes no adapter on the last
        assert {linear.name for linear in told.linears} == {name for name in modules if not name.endswith(apart)}


def test_a_window_is_shorter_than_the_rows_it_is_tested_with():
    windowed = {name for name, changes in FAMILIES.items() if "sliding_window" in changes}
    assert {"mistral", "phi3", "gemma2", "gemma3_text", "gpt_oss"} <= windowed
    assert max(LENGTHS) > 2 * WINDOW


def test_gpt_oss_as_published_is_dequantised_and_saved_as_an_ordinary_checkpoint(tmp_path):
    base, saved = tmp_path / "base", tmp_path / "saved"
    tiny("gpt_oss", base)
    exact = loaded(base).model.layers[0].mlp.experts
    as_mxfp4(base)
    model = loaded(base)
    experts = model.model.layers[0].mlp.experts
    for name in ("gate_up_proj", "down_proj"):
        ours, theirs = getattr(experts, name), getattr(exact, name)
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.15 * theirs.norm()
    model.save_pretrained(saved)
    again = loaded(saved)
    ids = drawn(1)
    with torch.no_grad():
        assert torch.equal(hidden_states(again, ids), hidden_states(model, ids))


def test_rotary_embeddings_that_change_with_the_longest_row_say_which_rows_go_alone(tmp_path):
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 10000.0}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 16, **factors}
    tiny("phi3", tmp_path, original_max_position_embeddings=16, rope_parameters=rope)
    model = loaded(tmp_path)
    assert longest_shared(model) == 16
    ids = drawn(1)
    with torch.no_grad():
        mixed = hidden_states(model, ids, bounds_of(LENGTHS))[:, LENGTHS[0] :]
        short = hidden_states(model, ids[:, LENGTHS[0] :], bounds_of(LENGTHS[1:]))
    assert (mixed - short).abs().max() > 0.01  # the row of 20 tokens disturbs those of up to 16


def test_a_family_that_looks_ahead_is_refused(tmp_path):
    tiny("llama", tmp_path)
    model = loaded(tmp_path)
    embed = model.get_input_embeddings().forward
    model.get_input_embeddings().forward = lambda ids: embed(ids) + embed(ids).mean(1, keepdim=True)
    with pytest.raises(EngineError, match="lets a token see those behind it"):
        layout_of(model)
