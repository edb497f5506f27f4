"""What the model says to validation rows: the most likely tokens, in bounded time, without a trace in the run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from tests.models import linear_names
from tests.threads import one_thread
from tunesmith.data.prepare import prepare
from tunesmith.data.store import Rows
from tunesmith.data.tokens import Tokenizer
from tunesmith.handoff.plan import LoraPart, Plan
from tunesmith.handoff.prepared import Prepared
from tunesmith.model.attention import attend_by_rows
from tunesmith.model.lora import adapt
from tunesmith.model.noise import Noise
from tunesmith.train import samples
from tunesmith.train.samples import Sampler, question

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Others may be at work here."""
    monkeypatch.setattr(samples, "SECONDS", 600.0)
    with one_thread():
        yield


@pytest.fixture(scope="module")
def run(make_a_run):
    """A run with four validation rows of prompt and completion."""
    run = make_a_run("asked", prepared=False)
    (run / "inputs/data/validation.jsonl").write_text(
        "\n".join(
            json.dumps({"prompt": prompt, "completion": " the assistant answers"})
            for prompt in ("the user asks", "hello world, how are you", "system", "today")
        )
    )
    prepare(run, Plan.read(run / "plan.json"), lambda event: None)
    return run


@pytest.fixture(scope="module")
def tokenizer(run):
    return Tokenizer.load(run / "inputs/model")


def rows_of(run) -> Rows:
    return Rows(run, Prepared.read(run / "data.json").validation)


def adapted(run, unmodified=False):
    """The run's model with adapters that change what it says."""
    model = LlamaForCausalLM.from_pretrained(run / "inputs/model", attn_implementation="eager").requires_grad_(False)
    if not unmodified:
        attend_by_rows(model, "sdpa")
    adapters = adapt(model, LoraPart(rank=4, alpha=8, dropout=0.5, modules=linear_names()), Noise(3))
    draw = torch.Generator().manual_seed(1)
    for adapter in adapters.values():
        adapter.B_Or.data.normal_(generator=draw)
    return model


def by_hand(model, ids: tuple[int, ...], ends) -> list[int]:
    """The whole sequence through the model for each token, without a cache."""
    said = list(ids)
    with torch.no_grad():
        while len(said) < len(ids) + samples.SAID_TOKENS and (said[-1] not in ends or len(said) == len(ids)):
            said.append(int(model(input_ids=torch.tensor([said]), use_cache=False).logits[0, -1].argmax()))
    return said[len(ids) :]


def test_the_first_three_rows_are_answered_by_the_most_likely_tokens(run, tokenizer):
    model, rows = adapted(run).eval(), rows_of(run)
    assert len(rows) == 4
    told = Sampler(model, tokenizer, rows, CPU)(5)
    assert told.step == 5
    assert [sample.prompt for sample in told.samples] == ["the user asks", "hello world, how are you", "system"]
    assert {sample.wanted for sample in told.samples} == {" the assistant answers"}
    plain = adapted(run, unmodified=True).eval()
    expected = [by_hand(plain, question(rows, row, tokenizer).ids, tokenizer.end_ids) for row in range(3)]
    assert [sample.said for sample in told.samples] == [tokenizer.decode(ids) for ids in expected]
    assert len({sample.said for sample in told.samples}) == 3


def test_asking_draws_nothing_and_leaves_the_model_as_it_is(run, tokenizer):
    model = adapted(run).eval()
    before, random = {name: weight.clone() for name, weight in model.state_dict().items()}, torch.get_rng_state()
    torch.set_num_threads(2)
    first = Sampler(model, tokenizer, rows_of(run), CPU)(1)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == 2
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert Sampler(model, tokenizer, rows_of(run), CPU)(1).samples == first.samples


def test_when_time_is_up_the_rest_is_not_asked(run, tokenizer, monkeypatch):
    model = adapted(run).eval()
    monkeypatch.setattr(samples, "SECONDS", 0.0)
    assert Sampler(model, tokenizer, rows_of(run), CPU)(1).samples == ()
    monkeypatch.setattr(samples, "SECONDS", 1e-3)
    (only,) = Sampler(model, tokenizer, rows_of(run), CPU)(1).samples
    monkeypatch.setattr(samples, "SECONDS", 600.0)
    assert len(only.said) < len(Sampler(model, tokenizer, rows_of(run), CPU)(1).samples[0].said)


def test_a_checkpoints_own_taste_in_generation_does_not_count(run, tokenizer):
    """What is shown is the model's most likely answer, not what its authors' settings make of it."""
    model, rows = adapted(run).eval(), rows_of(run)
    plain = Sampler(model, tokenizer, rows, CPU)(1).samples
    model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=9.0, num_beams=3)
    assert Sampler(model, tokenizer, rows, CPU)(1).samples == plain


def test_a_conversation_is_asked_up_to_its_first_answer_and_a_text_up_to_its_middle(tokenizer):
    ids = tokenizer.encode("the user asks") + tokenizer.encode("hello") + tokenizer.encode("system")
    first, second = len(tokenizer.encode("the user asks")), len(tokenizer.encode("hello"))
    mask = [0] * first + [1] * second + [0] * (len(ids) - first - second)
    told = question(_row(ids, mask), 0, tokenizer)
    assert (told.prompt, told.wanted) == ("the user asks", "hello")
    text = question(_row(ids, [1] * len(ids)), 0, tokenizer)
    assert text.prompt + text.wanted == "the user askshellosystem"
    assert text.ids == tuple(ids[: len(ids) // 2])
    assert question(_row(ids[:1], [1]), 0, tokenizer).ids == tuple(ids[:1])


def _row(ids: list[int], mask: list[int]):
    return SimpleNamespace(ids=lambda row: np.array(ids, np.int32), mask=lambda row: np.array(mask, np.uint8))
