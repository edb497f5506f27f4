"""Recomputed activations: the same gradients bit for bit, from much less memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.models import linear_names, tiny_llama
from tunesmith.errors import EngineError
from tunesmith.handoff.plan import LoraPart
from tunesmith.model import recompute as module
from tunesmith.model.attention import attend_by_rows
from tunesmith.model.head import hidden_states
from tunesmith.model.load import load_model
from tunesmith.model.lora import adapt
from tunesmith.model.noise import Noise
from tunesmith.model.recompute import decoder_layers, recompute

CPU = torch.device("cpu")
LAYERS, LENGTHS = 4, (30, 11, 7)
BOUNDS = torch.tensor([[[[0, 30, 41, 48]]]])


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    tiny_llama(directory, num_hidden_layers=LAYERS)
    return directory


def learner(model_dir, kind, dropout=0.3):
    """A model with adapters that learn, its noise, and its trained weights."""
    model, noise = load_model(model_dir, "fp32", "sdpa", CPU), Noise(1)
    attend_by_rows(model, "sdpa")
    part = LoraPart(rank=4, alpha=8, dropout=dropout, modules=linear_names(LAYERS), start="both_random")
    adapters = adapt(model, part, noise)
    for adapter in adapters.values():
        adapter.train()
    recompute(model, kind, noise)
    return model, noise, [weight for each in adapters.values() for weight in (each.A_rI, each.B_Or)]


def ids(seed=0):
    return torch.randint(0, 300, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(seed))


def loss_of(model, noise, step=1):
    noise.step, noise.rows, noise.lengths, noise.flat = step, (5, 8, 2), LENGTHS, True
    return hidden_states(model, ids(), BOUNDS).square().sum()


def kept_bytes(model, noise):
    """Of what autograd keeps between forward and backward, the weights left out."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(model, noise)
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("kind", ["layers", "offloaded"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_the_same_bit_for_bit(model_dir, kind, dropout):
    gradients = []
    for how in ("no", kind):
        model, noise, trained = learner(model_dir, how, dropout)
        gradients.append(torch.autograd.grad(loss_of(model, noise), trained))
    assert all(map(torch.equal, *gradients))
    assert all(gradient.any() for gradient in gradients[0])


def test_much_less_is_kept_between_forward_and_backward(model_dir):
    no, layers, offloaded = (kept_bytes(*learner(model_dir, kind)[:2]) for kind in ("no", "layers", "offloaded"))
    hidden = sum(LENGTHS) * 32 * 4
    assert LAYERS * hidden <= layers < 0.1 * no
    assert offloaded == layers


def test_a_backward_pass_in_another_thread_draws_the_dropout_of_its_own_pass(model_dir):
    """As on a GPU, whose backward passes run in a thread of the device."""
    model, noise, trained = learner(model_dir, "no")
    expected = torch.autograd.grad(loss_of(model, noise), trained)
    model, noise, trained = learner(model_dir, "layers")
    loss, found = loss_of(model, noise), []
    thread = threading.Thread(target=lambda: found.extend(torch.autograd.grad(loss, trained)))
    thread.start()
    thread.join()
    assert len(found) == len(expected)
    assert all(map(torch.equal, expected, found))


def test_threads_share_a_model(model_dir):
    """Four passes on two threads give what each gives alone, though their keys differ."""
    model, noise, trained = learner(model_dir, "layers")

    def gradient(step):
        return torch.autograd.grad(loss_of(model, noise, step), trained)

    alone = [gradient(step) for step in range(4)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(gradient, range(4)))
    assert all(torch.equal(*pair) for each in zip(alone, together, strict=True) for pair in zip(*each, strict=True))
    assert not torch.equal(alone[0][0], alone[1][0])


def test_only_the_layers_inputs_are_taken_to_main_memory(model_dir, monkeypatch):
    """The way to a device's main memory, walked on the CPU: what is handed to it, and that it comes back."""
    taken = []

    def main_memory():
        return torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: taken.append(tensor.shape) or tensor.clone(), lambda tensor: tensor
        )

    monkeypatch.setattr(module, "_main_memory", main_memory)
    monkeypatch.setattr(module, "_is_in_main_memory", lambda tensor: False)
    model, noise, trained = learner(model_dir, "offloaded")
    found = torch.autograd.grad(loss_of(model, noise), trained)
    assert taken == [(1, sum(LENGTHS), 32)] * LAYERS
    model, noise, trained = learner(model_dir, "no")
    assert all(map(torch.equal, found, torch.autograd.grad(loss_of(model, noise), trained)))


def test_nothing_is_recomputed_without_gradients(model_dir, monkeypatch):
    model, noise, _ = learner(model_dir, "layers", dropout=0.0)
    monkeypatch.setattr(module, "checkpoint", lambda *given, **named: pytest.fail("recomputes"))
    with torch.no_grad():
        loss_of(model, noise)


def test_a_model_without_a_list_of_layers_is_refused(model_dir):
    model = load_model(model_dir, "fp32", "sdpa", CPU)
    assert len(decoder_layers(model)) == LAYERS
    model.config.num_hidden_layers = 3
    with pytest.raises(EngineError, match="no list of 3 layers"):
        recompute(model, "layers", Noise(1))
