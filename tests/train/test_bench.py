"""The benchmark of a GPU runs whole without one, in small, and counts operations as the trainer does."""

import json
import sys

import pytest
import torch

from bench import made, sides, train_gpu
from tunesmith.handoff.plan import Plan
from tunesmith.model.head import Head
from tunesmith.model.load import load_model
from tunesmith.train import gauge


def in_this_process(side, name, python, run, steps, *, device):
    return sides.SIDES[side](run, steps, device)


@pytest.mark.parametrize(("weights", "rows"), [("lora", "packed"), ("all", "whole")])
def test_ours_is_timed_on_a_processor_as_on_a_gpu(weights, rows, monkeypatch, capsys):
    monkeypatch.setattr(train_gpu, "measured", in_this_process)
    given = ["--device", "cpu", "--size", "tiny", "--weights", weights, "--rows", rows, "--sequences", "4"]
    monkeypatch.setattr(sys, "argv", ["train_gpu", *given, "--steps", "2", "--no-peer"])
    assert train_gpu.main() == 0
    said = capsys.readouterr().out
    assert "2 steps of 4 sequences" in said
    (line,) = (line for line in said.splitlines() if line.startswith("ours "))
    assert int(line.split()[1].replace(",", "")) > 0
    assert "utilisation" in said


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["train_gpu"])
    assert train_gpu.main() == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("trained", [False, True])
def test_the_operations_are_those_that_the_trainer_counts(trained, tmp_path):
    shape, limit = train_gpu.SIZES["tiny"]
    model = made.random_llama(tmp_path / "model", shape)
    run = made.furnished(tmp_path / "run", model, made.made_up_rows([30, 70, 20, 90], 512, made.random.Random(1)))
    asked = train_gpu.argparse.Namespace(weights="lora", rows="whole", sequences=2, at_once=1)
    made.prepared(run, train_gpu._plan(asked, shape["num_hidden_layers"], limit, "fp32"), 2)
    loaded = load_model(model, Plan.read(run / "plan.json").model.compute, "sdpa", torch.device("cpu"))
    weights = list(loaded.parameters()) if trained else []
    counting = gauge.Gauge(loaded, weights, Head.of(loaded), torch.device("cpu"))
    sequences = [each for line in (run / "steps.jsonl").read_text().splitlines() for each in json.loads(line)]
    lengths = [len(each["input_ids"]) for each in sequences]
    learned = sum(label != -100 for each in sequences for label in each["labels"])
    expected = counting.flops_of(lengths, learned) / sum(lengths)
    assert made.operations_per_token(run, 0, made.TRAINED if trained else made.FROZEN) == pytest.approx(expected)
