"""Whole runs of the adapters that PEFT computes: they learn, and elsewhere they answer what their probe says."""

from __future__ import annotations

import json
import signal

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.models import tiny_llama
from tests.train.runs import finish, losses, said, train
from tunesmith.handoff.crash import VARIABLE

ALL_TRAINED = ("lm_head", "model.embed_tokens", "model.norm")
KINDS = {
    "dora": {"decomposed": True},
    "biases": {"bias": "all"},
    "whole modules": {"whole_modules": ALL_TRAINED},
    "pissa": {"start": "pissa"},
    "olora": {"start": "olora", "rank_stabilised": True},
}


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    """A Llama with biases and an output head of its own."""
    directory = tmp_path_factory.mktemp("biased")
    tiny_llama(directory, tie_word_embeddings=False, attention_bias=True, mlp_bias=True)
    return directory


@pytest.fixture
def make(make_run, biased):
    def made(name, kind, **changes):
        return make_run(name, base=biased, adapter={**KINDS[kind], "dropout": 0.1}, **changes)

    return made


def answer(model, probe):
    with torch.no_grad():
        return model(torch.tensor([probe["prompt_ids"]])).logits[0, -1].log_softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_each_kind_learns_and_plain_peft_loads_it(make, biased, kind):
    run = make("run", kind, optimizer={"learning_rate": 0.02, "warmup_steps": 0})
    curve = losses(train(run))
    assert curve[-1] < curve[0] - 0.4
    probe = json.loads((run / "artifact/tunesmith_probe.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(biased, dtype=torch.float32)
    found = answer(peft.PeftModel.from_pretrained(base, run / "artifact"), probe)
    assert [each["token"] for each in probe["top"]] == found.topk(8).indices.tolist()
    expected = torch.tensor([each["trained"] for each in probe["top"]])
    torch.testing.assert_close(found.topk(8).values, expected, rtol=1e-4, atol=1e-4)
    if kind == "whole modules":
        before, after = load_file(biased / "model.safetensors"), load_file(run / "artifact/adapter_model.safetensors")
        for name in ALL_TRAINED:
            assert not torch.equal(before[f"{name}.weight"], after[f"base_model.model.{name}.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_each_kind_can_be_added_to_the_base(make, kind):
    apart, merged = make("apart", kind), make("merged", kind, result={"form": "model"})
    assert losses(train(apart)) == losses(train(merged))
    probe = json.loads((apart / "artifact/tunesmith_probe.json").read_text())
    found = answer(AutoModelForCausalLM.from_pretrained(merged / "artifact", dtype=torch.float32), probe)
    expected = torch.tensor([each["trained"] for each in probe["top"]])
    torch.testing.assert_close(found.topk(8).values, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["dora", "pissa"])
def test_a_killed_run_goes_on_bit_for_bit(make, kind):
    whole, killed = make("whole", kind), make("killed", kind)
    assert finish(whole) == 0
    assert finish(killed, **{VARIABLE: "pass-done:5"}) == -signal.SIGKILL
    assert finish(killed, attempt=2) == 0
    assert losses(said(killed, 2)) == losses(said(whole))[-len(losses(said(killed, 2))) :]
    assert said(killed, 2)[-1].files == said(whole)[-1].files
