"""Noise on embeddings is NEFTune's, and a function of seed, step and row alone."""

from __future__ import annotations

import threading

import pytest
import torch

from tests.models import tiny_llama
from tunesmith.model.load import load_model
from tunesmith.model.noise import Noise, disturb_embeddings

ALPHA, HIDDEN = 5.0, 32


@pytest.fixture
def model(tmp_path):
    tiny_llama(tmp_path)
    return load_model(tmp_path, "fp32", "sdpa", torch.device("cpu"))


def test_embeddings_are_shifted_within_the_papers_bound_while_learning(model):
    noise, learning = Noise(1), [True]
    embedding = model.get_input_embeddings()
    ids = torch.arange(2 * 150).view(2, 150) % 300
    plain = embedding(ids)
    disturb_embeddings(model, ALPHA, noise, lambda: learning[0])
    noise.rows, noise.lengths = (4, 9), (150, 40)
    shift = embedding(ids) - plain
    for place, length in ((0, 150), (1, 40)):
        bound = ALPHA / (length * HIDDEN) ** 0.5
        assert float(shift[place, :length].abs().max()) == pytest.approx(bound, rel=0.01)
        assert float(shift[place, :length].std()) == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not shift[place, length:].any()
    learning[0] = False
    assert torch.equal(embedding(ids), plain)


def test_a_rows_noise_does_not_depend_on_where_it_lies():
    noise = Noise(1)
    noise.step, noise.rows, noise.lengths = 3, (4, 9), (5, 7)
    padded = noise.shift(torch.zeros(2, 9, HIDDEN), ALPHA)
    noise.flat, noise.rows, noise.lengths = True, (9, 4), (7, 5)
    flat = noise.shift(torch.zeros(1, 12, HIDDEN), ALPHA)
    assert torch.equal(flat[0, :7], padded[1, :7])
    assert torch.equal(flat[0, 7:], padded[0, :5])
    noise.step = 4
    assert not torch.equal(noise.shift(torch.zeros(1, 12, HIDDEN), ALPHA), flat)


@pytest.mark.parametrize("flat", [True, False])
def test_a_module_that_gets_all_tokens_in_one_list_draws_the_same(flat):
    noise = Noise(1)
    noise.rows, noise.lengths, noise.flat = (4, 9), (5, 5), flat
    shape = (1, 10, HIDDEN) if flat else (2, 5, HIDDEN)
    as_rows = noise.kept(torch.zeros(shape), 0.5, "x")
    assert torch.equal(noise.kept(torch.zeros(10, HIDDEN), 0.5, "x"), as_rows.view(10, HIDDEN))


@pytest.mark.parametrize("flat", [True, False])
def test_a_pass_without_its_key_is_noticed(flat):
    noise = Noise(1)
    noise.rows, noise.lengths, noise.flat = (4, 9), (5, 12), flat
    with pytest.raises(AssertionError, match="key was not set"):
        noise.kept(torch.zeros(2, 9, HIDDEN), 0.5, "x")


def test_a_key_is_lent_to_another_thread_and_taken_back():
    noise, seen = Noise(1), []
    noise.step, noise.rows, noise.lengths = 3, (4,), (5,)
    key = noise.key

    def elsewhere():
        with noise.at(key):
            seen.append(noise.kept(torch.zeros(1, 5, 2), 0.5, "x"))
        seen.append(noise.key)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert torch.equal(seen[0], noise.kept(torch.zeros(1, 5, 2), 0.5, "x"))
    assert seen[1] == (0, (), (), False)
