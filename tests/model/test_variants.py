"""Adapters of PEFT's kinds: plain PEFT and a model that they are added to compute what the student computes."""

from __future__ import annotations

import copy
import json

import peft
import pytest
import torch

from tests.models import linear_names, tiny_llama
from tunesmith.errors import EngineError
from tunesmith.handoff.peft import PREFIX
from tunesmith.handoff.plan import LoraPart
from tunesmith.model.attention import attend_by_rows
from tunesmith.model.head import Head, hidden_states
from tunesmith.model.load import load_model
from tunesmith.model.lora import adapt, names_of
from tunesmith.model.noise import Noise
from tunesmith.model.norms import write_out_norms
from tunesmith.model.peft_files import read_adapter
from tunesmith.model.recompute import recompute
from tunesmith.model.variants import Variants
from tunesmith.train.losses import summed_cross_entropy

CPU = torch.device("cpu")
PLAIN = LoraPart(rank=4, alpha=6, dropout=0.0, modules=linear_names()[:3] + linear_names()[-2:])
WHOLE = ("model.embed_tokens", "model.norm", "lm_head")
KINDS = {
    "dora": {"decomposed": True},
    "dora_of_random_starts": {"decomposed": True, "start": "both_random", "rank_stabilised": True},
    "bias_all": {"bias": "all"},
    "bias_of_adapted": {"bias": "lora_only"},
    "whole": {"whole_modules": WHOLE},
    "pissa": {"start": "pissa"},
    "olora": {"start": "olora", "rank_stabilised": True, "bias": "all"},
    "everything": {"decomposed": True, "bias": "all", "whole_modules": WHOLE, "start": "gaussian"},
}
LENGTHS, BOUNDS = (9, 14, 5), torch.tensor([[[[0, 9, 23, 28]]]])
IDS = torch.randint(0, 300, (1, 28), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """Untied, and with biases that are not zero."""
    directory = tmp_path_factory.mktemp("model")
    tiny_llama(directory, attention_bias=True, tie_word_embeddings=False)
    model = load_model(directory, "fp32", "sdpa", CPU)
    draw = torch.Generator().manual_seed(4)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.data = torch.randn(weight.shape, generator=draw)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def load(model_dir):
    """A base model of one's own, in a type of one's choice."""
    loaded = {compute: load_model(model_dir, compute, "sdpa", CPU) for compute in ("fp32", "bf16")}
    return lambda compute="fp32": copy.deepcopy(loaded[compute])


def student(load, kind=None, compute="fp32", seed=1, **changes):
    model = load(compute)
    attend_by_rows(model, "sdpa")
    part = PLAIN.model_copy(update=(KINDS[kind] if kind else {}) | changes)
    write_out_norms(model, besides=part.whole_modules)
    return Variants(model, part, "default/tiny", Noise(seed))


def trained(load, kind, **changes):
    """A student all of whose weights have moved."""
    found, draw = student(load, kind, **changes), torch.Generator().manual_seed(5)
    for weight in found.parameters().values():
        weight.data += torch.randn(weight.shape, generator=draw) * 0.05
    return found


def logits(model):
    with torch.no_grad():
        return model(IDS).logits.float()


def gradients(model, noise, weights):
    noise.step, noise.rows, noise.lengths, noise.flat = 3, (4, 0, 7), LENGTHS, True
    hidden_NH = hidden_states(model, IDS, BOUNDS)[0]
    return torch.autograd.grad(summed_cross_entropy(hidden_NH, IDS[0], Head.of(model)), weights)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_peft_and_a_base_with_the_result_added_give_the_same_logits(load, tmp_path, kind):
    ours, merged = trained(load, kind), load()
    expected = logits(ours.model)
    assert not torch.allclose(expected, logits(merged), atol=0.1)
    ours.write_adapter(tmp_path)
    theirs = peft.PeftModel.from_pretrained(load(), tmp_path)
    torch.testing.assert_close(logits(theirs), expected, rtol=1e-4, atol=1e-4)
    ours.add_to(merged, {name: weight.detach() for name, weight in ours.parameters().items()})
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["everything", "pissa"])
def test_adapters_of_a_bf16_base_are_float32_and_load_in_plain_peft(load, tmp_path, kind):
    ours = trained(load, kind, compute="bf16")
    assert all(weight.dtype == torch.float32 for name, weight in ours.parameters().items() if "lora" in name)
    ours.write_adapter(tmp_path)
    theirs = peft.PeftModel.from_pretrained(load("bf16"), tmp_path)
    apart = logits(theirs) - logits(ours.model)
    assert float(apart.norm() / logits(ours.model).norm()) < 0.02


@pytest.mark.parametrize("kind", ["dora", "bias_all", "whole", "pissa", "olora"])
def test_before_the_first_step_the_model_is_the_base(load, kind):
    base = logits(load())
    torch.testing.assert_close(logits(student(load, kind).model), base, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("start", ["uniform", "gaussian", "both_random"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_plain_adapter_is_the_same_on_both_paths(load, start, dropout):
    slow = student(load, start=start, dropout=dropout)
    model, noise = load(), Noise(1)
    attend_by_rows(model, "sdpa")
    adapters = adapt(model, PLAIN.model_copy(update={"start": start, "dropout": dropout}), noise)
    fast = names_of(adapters)
    assert list(slow.parameters()) == list(fast)
    assert all(torch.equal(weight, fast[name]) for name, weight in slow.parameters().items())
    slow.learn(True)
    for adapter in adapters.values():
        adapter.train()
    found = gradients(slow.model, slow.noise, list(slow.parameters().values()))
    for ours, theirs in zip(found, gradients(model, noise, list(fast.values())), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_dropout_is_off_where_nothing_is_learnt(load):
    ours = trained(load, "dora", dropout=0.4)
    quiet = logits(ours.model)
    ours.learn(True)
    ours.noise.rows, ours.noise.lengths = (3,), (28,)
    assert not torch.equal(logits(ours.model), quiet)
    ours.learn(False)
    assert torch.equal(logits(ours.model), quiet)


def test_what_is_trained_is_what_the_plan_names(load):
    names = {kind: set(student(load, kind).parameters()) for kind in KINDS}
    halves = {f"{PREFIX}{name}.lora_{half}.weight" for name in PLAIN.modules for half in "AB"}
    biases = {f"model.layers.{layer}.self_attn.{x}_proj" for layer in (0, 1) for x in "qkvo"}
    assert names["pissa"] == halves
    assert names["dora"] == halves | {f"{PREFIX}{name}.lora_magnitude_vector" for name in PLAIN.modules}
    assert names["whole"] == halves | {f"{PREFIX}{name}.weight" for name in WHOLE}
    assert len(names["bias_all"] - halves) == len(biases) == 8
    assert len(names["bias_of_adapted"] - halves) == len(biases & set(PLAIN.modules)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_is_trained_gets_a_gradient(load, kind):
    ours = trained(load, kind)
    ours.learn(True)
    names, weights = zip(*ours.parameters().items(), strict=True)
    found = dict(zip(names, gradients(ours.model, ours.noise, weights), strict=True))
    without = [name for name, gradient in found.items() if not gradient.any()]
    assert [name for name in without if "k_proj" not in name] == []  # a key's bias changes no attention


@pytest.mark.parametrize("kind", ["pissa", "olora", "everything"])
def test_a_second_process_starts_from_the_same_values(load, kind):
    one, two = (student(load, kind) for _ in range(2))
    assert all(torch.equal(weight, two.parameters()[name]) for name, weight in one.parameters().items())
    assert torch.equal(logits(one.model), logits(two.model))


@pytest.mark.parametrize(("kind", "alpha"), [("pissa", 12), ("olora", 6 * 2**0.5)])
def test_what_started_as_a_part_of_the_base_is_written_as_plain_lora_of_twice_the_rank(load, tmp_path, kind, alpha):
    trained(load, kind, bias="none").write_adapter(tmp_path)
    found = read_adapter(tmp_path)
    assert (found.rank, found.alpha) == (8, pytest.approx(alpha))
    assert "init_lora_weights" not in json.loads((tmp_path / "adapter_config.json").read_text())


@pytest.mark.parametrize("kind", ["everything", "pissa"])
def test_recomputed_activations_give_the_same_gradients(load, kind):
    found = []
    for how in ("no", "layers"):
        ours = trained(load, kind, dropout=0.4)
        recompute(ours.model, how, ours.noise)
        ours.learn(True)
        found.append(gradients(ours.model, ours.noise, list(ours.parameters().values())))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modules": ("model.nothing",)}, r"adapter\.modules: the model has no module model\.nothing"),
        ({"whole_modules": ("model.nothing",)}, r"adapter\.whole_modules: the model has no module model\.nothing"),
    ],
)
def test_a_module_that_is_not_there_is_named(load, changes, words):
    with pytest.raises(EngineError, match=words):
        student(load, **changes)
