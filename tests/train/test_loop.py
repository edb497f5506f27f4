"""Whole short runs: equal to a plain PEFT loop, to themselves, and well behaved when told to stop."""

from __future__ import annotations

import json
import math
import signal

import peft
import pytest
import torch
from safetensors.torch import load_file

from tests.train.runs import CPU, by_hand, losses, train
from tunesmith.errors import EngineError
from tunesmith.handoff.plan import Plan
from tunesmith.handoff.prepared import Prepared
from tunesmith.handoff.wish import Wish
from tunesmith.model.load import load_model
from tunesmith.train import checkpoint, job
from tunesmith.train.signals import Doorbell


def plain_peft_loop(run, first_weights):
    """The same run by hand: one row at a time, full logits, torch's optimizer, no code of ours but the rows."""
    plan, prepared = Plan.read(run / "plan.json"), Prepared.read(run / "data.json")
    base = load_model(run / "inputs/model", "fp32", "eager", CPU)
    model = peft.PeftModel.from_pretrained(base, first_weights, is_trainable=True)
    part = plan.optimizer
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[part.name]
    optimizer = kind(weights, lr=1.0, betas=(part.beta1, part.beta2), eps=part.eps, weight_decay=part.weight_decay)

    def rate(done):
        if done < part.warmup_steps:
            return part.learning_rate * (done + 1) / part.warmup_steps
        share = (done - part.warmup_steps) / (prepared.steps - part.warmup_steps)
        left = {"cosine": (1 + math.cos(math.pi * share)) / 2, "linear": 1 - share, "constant": 1.0}[part.decay]
        floor = part.learning_rate if part.decay == "constant" else part.min_learning_rate
        return floor + (part.learning_rate - floor) * left

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    found = []
    for step in range(1, prepared.steps + 1):
        loss = by_hand(model, run, step)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, part.max_grad_norm)
        optimizer.step()
        found.append((float(loss.detach()), float(norm), schedule.get_last_lr()[0]))
        schedule.step()
        optimizer.zero_grad()
    return found


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "adam", "weight_decay": 0.1},
        {"name": "adamw", "weight_decay": 0.1, "decay": "linear", "max_grad_norm": 0.3},
        {"decay": "constant", "warmup_steps": 0, "max_grad_norm": 1e9},
    ],
)
def test_a_run_equals_a_plain_peft_loop(make_run, optimizer):
    still = make_run("still", optimizer={"learning_rate": 0.0, "min_learning_rate": 0.0, "warmup_steps": 0})
    train(still)
    run = make_run("run", optimizer=optimizer)
    ours = [(e.loss, e.grad_norm, e.learning_rate) for e in train(run) if e.kind == "progress"]
    theirs = plain_peft_loop(run, still / "artifact")
    assert len(ours) == 6
    assert ours[-1][0] < ours[0][0] - 0.1
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-4, atol=2e-5)


def test_how_a_step_is_cut_into_passes_and_shared_by_threads_changes_nothing(make_run):
    """With dropout, too: it is drawn row by row."""
    curves = []
    for budget, crew in ((1, 1), (60, 1), (10_000, 1), (60, 3), (10_000, 3)):
        run = make_run(f"run{budget}-{crew}", adapter={"dropout": 0.2}, schedule={"tokens_per_pass": budget})
        curves.append([(e.loss, e.grad_norm) for e in train(run, crew=crew) if e.kind == "progress"])
    for curve in curves[1:]:
        torch.testing.assert_close(torch.tensor(curves[0]), torch.tensor(curve), rtol=1e-4, atol=1e-5)


def test_a_repeated_run_is_bit_identical(make_run):
    files = []
    for name in ("one", "two"):
        run = make_run(name, adapter={"dropout": 0.1}, model={"compute": "bf16"})
        files.append(train(run, crew=3)[-1].files)
    assert files[0] == files[1]


def test_validation_does_not_disturb_training(make_run):
    split = {"split_fraction": 0.2}
    often = make_run("often", data=split, adapter={"dropout": 0.3})
    seldom = make_run("seldom", data=split, adapter={"dropout": 0.3})
    prepared = Prepared.read(often / "data.json")
    prepared.model_copy(update={"validate_at": tuple(range(1, prepared.steps + 1))}).write(often / "data.json")
    assert losses(train(often)) == losses(train(seldom))


def test_the_lowest_validation_loss_is_exported(make_run):
    optimizer = {"learning_rate": 3.0, "decay": "constant", "warmup_steps": 0}
    run = make_run(data={"split_fraction": 0.2}, optimizer=optimizer)
    prepared = Prepared.read(run / "data.json")
    prepared.model_copy(update={"validate_at": tuple(range(1, prepared.steps + 1))}).write(run / "data.json")
    events = train(run)
    measured = {event.step: event.loss for event in events if event.kind == "validated"}
    best = min(measured, key=measured.__getitem__)
    assert best != events[-1].step, "the test needs a run that gets worse"
    assert (events[-1].exported_step, events[-1].reason) == (best, "lowest_validation_loss")
    kept = [path.name for path in checkpoint.checkpoint_directories(run)]
    assert (kept[0], kept[-1]) == (f"step-{best:06d}", f"step-{prepared.steps:06d}")
    weights = load_file(run / "checkpoints" / kept[0] / "weights.safetensors")
    exported = load_file(run / "artifact/adapter_model.safetensors")
    assert weights.keys() == exported.keys()
    assert all(torch.equal(weights[name], exported[name]) for name in weights)


def test_without_validation_rows_the_last_step_is_exported(make_run):
    last = train(make_run())[-1]
    assert (last.kind, last.exported_step, last.reason) == ("finished", last.step, "last")


def test_the_artifact_answers_in_plain_peft_what_its_probe_says(make_run):
    run = make_run()
    train(run)
    probe = json.loads((run / "artifact/tunesmith_probe.json").read_text())
    base = load_model(run / "inputs/model", "fp32", "eager", CPU)
    model = peft.PeftModel.from_pretrained(base, run / "artifact")
    with torch.no_grad():
        expected = model(torch.tensor([probe["prompt_ids"]])).logits[0, -1].log_softmax(-1).topk(8)
    assert [each["token"] for each in probe["top"]] == expected.indices.tolist()
    torch.testing.assert_close(torch.tensor([each["trained"] for each in probe["top"]]), expected.values)
    assert probe["compute"] == "fp32"


def test_a_cancel_is_heard_at_the_next_step_boundary(make_run):
    run = make_run()

    def wish_at_two(event):
        if event.kind == "progress" and event.step == 2:
            Wish(wish="cancel").write(run / "wish.json")

    events = train(run, wish_at_two)
    assert [event.kind for event in events][-2:] == ["progress", "stopped"]
    assert events[-1].step == 2
    assert not (run / "artifact").exists()


def test_only_sigterm_asks_for_an_end():
    doorbell = Doorbell()
    doorbell._ring(signal.SIGUSR1, None)
    assert not doorbell.told_to_end
    doorbell._ring(signal.SIGTERM, None)
    assert doorbell.told_to_end


def test_a_loss_that_is_no_number_names_the_step_and_a_way_out(make_run):
    run = make_run(optimizer={"learning_rate": 1e30, "max_grad_norm": 1e30, "warmup_steps": 0})
    words = r"step 2: the loss or its gradient is nan.* from train\.jsonl line \d+.*A lower learning rate than 1e\+30"
    with pytest.raises(EngineError, match=words):
        train(run)


def test_a_first_loss_that_is_no_number_is_not_blamed_on_the_learning_rate(make_run):
    run = make_run(objective={"embedding_noise": 1e60})
    with pytest.raises(EngineError, match=r"step 1: the loss .* is nan.* Nothing was learnt before it"):
        train(run)


def test_a_long_step_and_a_long_validation_give_signs_of_life(make_run, monkeypatch):
    monkeypatch.setattr(job, "SIGN_SECONDS", 0.0)
    run = make_run(data={"split_fraction": 0.2}, schedule={"tokens_per_pass": 40})
    signs = [event for event in train(run) if event.kind == "busy"]
    assert {(sign.step, sign.doing) for sign in signs} >= {(1, "step"), (2, "step"), (6, "validation")}
    assert len(signs) > 10, "one for each pass"
