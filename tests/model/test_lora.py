"""Our adapters compute what PEFT's compute, forward and backward, and read and write PEFT's files."""

from __future__ import annotations

import json

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.models import linear_names, tiny_llama
from tunesmith.errors import EngineError
from tunesmith.handoff.plan import LoraPart
from tunesmith.model.load import load_model
from tunesmith.model.lora import LoraLinear, adapt, deltas, names_of, weights_of
from tunesmith.model.noise import Noise
from tunesmith.model.peft_files import read_adapter, write_adapter

CPU = torch.device("cpu")
PART = LoraPart(rank=4, alpha=12, dropout=0.0, modules=linear_names())


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    tiny_llama(directory)
    return directory


@pytest.fixture
def adapted(model_dir):
    """The tiny model in float32 with adapters whose B is not zero, and its module names."""
    model = load_model(model_dir, "fp32", "sdpa", CPU)
    names = [name for name, _ in model.named_modules()]
    adapters = adapt(model, PART, Noise(5))
    generator = torch.Generator().manual_seed(1)
    for adapter in adapters.values():
        adapter.B_Or.data = torch.randn(adapter.B_Or.shape, generator=generator) * 0.1
    return model, adapters, names


def theirs(model_dir, adapter_dir, trainable=False):
    base = load_model(model_dir, "fp32", "sdpa", CPU)
    return peft.PeftModel.from_pretrained(base, adapter_dir, is_trainable=trainable)


def test_written_files_give_the_same_logits_in_plain_peft(adapted, model_dir, tmp_path):
    model, adapters, names = adapted
    write_adapter(tmp_path, weights_of(adapters, PART, "default/tiny"), names)
    ids = torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours, peft_logits = model(ids).logits, theirs(model_dir, tmp_path)(ids).logits
    torch.testing.assert_close(ours, peft_logits, rtol=1e-5, atol=1e-5)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert config["base_model_name_or_path"] == "default/tiny"


def test_gradients_equal_pefts(adapted, model_dir, tmp_path):
    model, adapters, names = adapted
    write_adapter(tmp_path, weights_of(adapters, PART, "x"), names)
    reference = theirs(model_dir, tmp_path, trainable=True)
    ids = torch.randint(0, 300, (3, 17), generator=torch.Generator().manual_seed(2))
    for one in (model, reference):
        one(ids).logits.logsumexp(-1).sum().backward()
    for name, adapter in adapters.items():
        layer = reference.get_submodule(f"base_model.model.{name}")
        torch.testing.assert_close(adapter.A_rI.grad, layer.lora_A["default"].weight.grad, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(adapter.B_Or.grad, layer.lora_B["default"].weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_gradients_are_those_of_the_formula_in_float64(bias, dropout):
    part = LoraPart(rank=3, alpha=5, dropout=dropout, modules=("x",))
    noise = Noise(0)
    noise.step, noise.rows, noise.lengths = 1, (4, 9), (5, 3)
    layer = LoraLinear(nn.Linear(7, 6, bias=bias), "x", part, noise).double()
    layer.requires_grad_(True).base.requires_grad_(False)
    layer.B_Or.data = torch.randn_like(layer.B_Or)
    x = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, a, b: layer(x), (x, layer.A_rI, layer.B_Or), check_batched_grad=False)


def test_start_values_depend_on_seed_and_name_alone(model_dir):
    def start(seed, modules):
        model = load_model(model_dir, "fp32", "sdpa", CPU)
        return adapt(model, PART.model_copy(update={"modules": modules}), Noise(seed))

    names = linear_names()
    all_of_them, one = start(1, names), start(1, names[3:4])
    assert torch.equal(all_of_them[names[3]].A_rI, one[names[3]].A_rI)
    assert not torch.equal(one[names[3]].A_rI, start(2, names[3:4])[names[3]].A_rI)
    a_rI = all_of_them[names[6]].A_rI.detach()
    assert a_rI.abs().max() <= 64**-0.5
    assert a_rI.abs().mean() == pytest.approx(64**-0.5 / 2, rel=0.15)
    assert not any(adapter.B_Or.any() for adapter in all_of_them.values())


def test_dropout_is_drawn_from_seed_step_and_row():
    part = LoraPart(rank=2, alpha=2, dropout=0.5, modules=("x",))
    noise = Noise(0)
    layer = LoraLinear(nn.Linear(16, 16, bias=False), "x", part, noise)
    layer.B_Or.data.normal_()
    x = torch.ones(1, 6, 16)

    def drawn(step, rows, lengths, padded=6):
        noise.step, noise.rows, noise.lengths = step, rows, lengths
        return layer(torch.ones(len(rows), padded, 16))

    torch.testing.assert_close(drawn(1, (8,), (4,))[0, :4], drawn(1, (3, 8), (6, 4), padded=9)[1, :4])
    assert not torch.equal(drawn(1, (8,), (6,)), drawn(2, (8,), (6,)))
    assert not torch.equal(drawn(1, (8,), (6,)), drawn(1, (9,), (6,)))
    layer.eval()
    assert torch.equal(layer(x)[0, 0], layer(x)[0, 5])


def test_adapters_read_back_are_the_same(adapted, tmp_path):
    _, adapters, names = adapted
    write_adapter(tmp_path, weights_of(adapters, PART, "default/tiny"), names)
    found = read_adapter(tmp_path)
    assert (found.rank, found.alpha, found.scale, found.base_model_name_or_path) == (4, 12, 3.0, "default/tiny")
    assert set(found.modules) == set(PART.modules)
    for name, adapter in adapters.items():
        assert all(map(torch.equal, found.modules[name], (adapter.A_rI, adapter.B_Or)))


def test_weights_are_named_as_in_the_file(adapted, tmp_path):
    _, adapters, names = adapted
    write_adapter(tmp_path, weights_of(adapters, PART, "x"), names)
    found, ours = load_file(tmp_path / "adapter_model.safetensors"), names_of(adapters)
    assert found.keys() == ours.keys()
    assert all(torch.equal(found[name], parameter) for name, parameter in ours.items())


def test_modules_that_share_a_last_name_are_told_apart(adapted, tmp_path, model_dir):
    model = load_model(model_dir, "fp32", "sdpa", CPU)
    names = [name for name, _ in model.named_modules()]
    part = PART.model_copy(update={"modules": linear_names()[:1]})
    write_adapter(tmp_path, weights_of(adapt(model, part, Noise(1)), part, "x"), names)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == list(part.modules)
    assert len([name for name, _ in theirs(model_dir, tmp_path).named_parameters() if "lora_" in name]) == 2


def test_a_rank_stabilised_adapter_is_scaled_by_the_root_here_and_in_peft(model_dir, tmp_path):
    part = PART.model_copy(update={"rank_stabilised": True, "start": "both_random"})
    model = load_model(model_dir, "fp32", "sdpa", CPU)
    names = [name for name, _ in model.named_modules()]
    adapters = adapt(model, part, Noise(5))
    write_adapter(tmp_path, weights_of(adapters, part, "x"), names)
    assert read_adapter(tmp_path).scale == 12 / 4**0.5
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, theirs(model_dir, tmp_path)(ids).logits, rtol=1e-5, atol=1e-4)
        merged = load_model(model_dir, "fp32", "sdpa", CPU)
        for name, delta in deltas(adapters):
            merged.get_submodule(name).weight += delta
        torch.testing.assert_close(model(ids).logits, merged(ids).logits, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("start", "pefts"), [("uniform", True), ("gaussian", "gaussian"), ("both_random", False)])
def test_start_values_are_distributed_as_pefts(start, pefts):
    rank, inputs, outputs = 16, 300, 200
    part = LoraPart(rank=rank, alpha=rank, dropout=0.0, modules=("x",), start=start)
    ours = LoraLinear(nn.Linear(inputs, outputs), "x", part, Noise(3))
    model = nn.ModuleDict({"x": nn.Linear(inputs, outputs)})
    config = peft.LoraConfig(r=rank, target_modules=["x"], init_lora_weights=pefts)
    layer = peft.inject_adapter_in_model(config, model)["x"]
    for mine, its in ((ours.A_rI, layer.lora_A["default"].weight), (ours.B_Or, layer.lora_B["default"].weight)):
        mine, its = mine.detach().flatten(), its.detach().flatten()
        assert float(mine.std()) == pytest.approx(float(its.std()), rel=0.06)
        assert abs(float(mine.mean())) <= 0.06 * float(its.std())
        kurtosis = [float((each**4).mean()) / max(float((each**2).mean()) ** 2, 1e-30) for each in (mine, its)]
        assert kurtosis[0] == pytest.approx(kurtosis[1], rel=0.15)  # 3 where normal, 1.8 where uniform


def test_an_adapters_own_seed_draws_its_start_and_nothing_else():
    part = LoraPart(rank=2, alpha=2, dropout=0.5, modules=("x",), seed=7)
    one, other = (LoraLinear(nn.Linear(16, 16), "x", part, Noise(seed)) for seed in (1, 2))
    unseeded = LoraLinear(nn.Linear(16, 16), "x", part.model_copy(update={"seed": None}), Noise(7))
    assert torch.equal(one.A_rI, other.A_rI)
    assert torch.equal(one.A_rI, unseeded.A_rI)
    for layer in (one, other):
        layer.noise.rows, layer.noise.lengths = (1,), (6,)
    kept = [layer.noise.kept(torch.ones(1, 6, 16), 0.5, "x") for layer in (one, other)]
    assert not torch.equal(*kept)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "LOHA"}, "peft_type"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"r": 8}, "do not fit r = 8"),
        ({"r": None}, r"r \(None\)"),
    ],
)
def test_what_is_not_plain_lora_is_refused_by_name(adapted, tmp_path, change, words):
    _, adapters, names = adapted
    write_adapter(tmp_path, weights_of(adapters, PART, "x"), names)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(EngineError, match=words):
        read_adapter(tmp_path)


def test_a_directory_without_an_adapter_says_what_is_missing(tmp_path):
    with pytest.raises(EngineError, match=r"there is no adapter_config\.json"):
        read_adapter(tmp_path)


@pytest.mark.parametrize(("name", "words"), [("model.nothing", "has no module"), ("model.norm", "not a linear layer")])
def test_a_module_that_cannot_be_adapted_is_named(model_dir, name, words):
    model = load_model(model_dir, "fp32", "sdpa", CPU)
    with pytest.raises(EngineError, match=words):
        adapt(model, PART.model_copy(update={"modules": (name,)}), Noise(1))
