"""All weights trained, and adapters added to the base: equal to a plain loop, loadable by transformers, resumable."""

from __future__ import annotations

import json
import math
import shutil
import signal

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models import CHATML, tiny_llama
from tests.plans import PARTS
from tests.train.runs import by_hand, finish, losses, said, train
from tunesmith.handoff.crash import VARIABLE
from tunesmith.handoff.plan import Plan
from tunesmith.handoff.prepared import Prepared

WHOLE = {"adapter": None, "optimizer": {"learning_rate": 3e-3, "decay": "constant", "warmup_steps": 0}}


@pytest.fixture
def make_whole(make_run):
    """A run that trains all weights."""

    def make(name="run", **changes):
        return make_run(name, **{**WHOLE, **changes})

    return make


def plain_loop(run):
    """The same run by hand, row by row: transformers' own logits and attention, torch's optimizer."""
    plan, prepared = Plan.read(run / "plan.json"), Prepared.read(run / "data.json")
    model = AutoModelForCausalLM.from_pretrained(run / "inputs/model", dtype=torch.float32, attn_implementation="eager")
    part, weights = plan.optimizer, list(model.parameters())
    groups = [
        {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": part.weight_decay},
        {"params": [weight for weight in weights if weight.dim() == 1], "weight_decay": 0.0},
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[part.name]
    optimizer = kind(groups, lr=part.learning_rate, betas=(part.beta1, part.beta2), eps=part.eps)
    found = []
    for step in range(1, prepared.steps + 1):
        loss = by_hand(model, run, step)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, part.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        found.append((float(loss.detach()), float(norm)))
    return model, found


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_training_all_weights_equals_a_plain_loop(make_whole, tmp_path, tied, optimizer):
    tiny_llama(tmp_path / "base", tie_word_embeddings=tied, attention_bias=not tied)
    rule = {**WHOLE["optimizer"], "name": optimizer, "weight_decay": 0.1}
    run = make_whole(base=tmp_path / "base", optimizer=rule)
    ours = [(event.loss, event.grad_norm) for event in train(run) if event.kind == "progress"]
    model, theirs = plain_loop(run)
    assert ours[-1][0] < ours[0][0] * 0.9
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-4, atol=2e-5)
    exported = AutoModelForCausalLM.from_pretrained(run / "artifact", dtype=torch.float32)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(exported.get_parameter(name), weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("adapted", [False, True], ids=["all weights", "merged"])
@pytest.mark.parametrize(("compute", "dtype"), [("fp32", "float32"), ("fp32", "bfloat16"), ("bf16", "float16")])
def test_a_model_artifact_loads_in_transformers_and_says_what_its_probe_says(
    make_run, make_whole, adapted, compute, dtype
):
    changes = {"model": {"compute": compute}, "result": {"form": "model", "dtype": dtype}}
    run = (make_run if adapted else make_whole)(**changes)
    events = train(run)
    artifact = run / "artifact"
    model, report = AutoModelForCausalLM.from_pretrained(artifact, dtype="auto", output_loading_info=True)
    assert not any(report.values()), report
    assert str(model.dtype) == f"torch.{dtype}"
    assert json.loads((artifact / "config.json").read_text())["dtype"] == dtype
    (started,) = [event for event in events if event.kind == "started"]
    assert (started.stored_as, started.adapted_modules) == (dtype, 14 if adapted else 0)
    probe = json.loads((artifact / "tunesmith_probe.json").read_text())
    with torch.no_grad():
        logits = model.to({"fp32": torch.float32, "bf16": torch.bfloat16}[compute])(
            torch.tensor([probe["prompt_ids"]])
        ).logits[0, -1]
    said_by_probe = torch.tensor([each["trained"] for each in probe["top"]])
    ids = [each["token"] for each in probe["top"]]
    near = {"fp32": 1e-4, "bf16": 0.08}[compute]
    torch.testing.assert_close(logits.float().log_softmax(-1)[ids], said_by_probe, rtol=0, atol=near)
    moved = max(abs(each["trained"] - each["base"]) for each in probe["top"])
    assert moved > 0.3, "the test needs a run that changed the model"
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    assert tokenizer.chat_template == CHATML


def test_merged_weights_are_the_base_and_scaled_adapters_in_float64(make_run):
    merged, apart = make_run("merged", result={"form": "model"}), make_run("apart")
    assert losses(train(merged)) == losses(train(apart))
    base, found = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).state_dict()
        for path in (merged / "inputs/model", merged / "artifact")
    )
    adapter = load_file(apart / "artifact/adapter_model.safetensors")
    part, changed = PARTS["adapter"], 0
    for name, weight in base.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{key}.lora_A.weight" in adapter:
            a, b = (adapter[f"{key}.lora_{half}.weight"].double() for half in "AB")
            weight = weight + part.alpha / part.rank * b @ a
            changed += 1
        torch.testing.assert_close(found[name], weight, rtol=1e-6, atol=1e-7)
    assert changed == 14


def test_a_merged_model_in_bf16_keeps_changes_that_rounding_to_the_nearest_would_take_back(make_run, tmp_path):
    tiny_llama(tmp_path / "exact", hidden_size=128, intermediate_size=256)
    AutoModelForCausalLM.from_pretrained(tmp_path / "exact").bfloat16().save_pretrained(tmp_path / "base")
    shutil.copy(tmp_path / "exact/tokenizer.json", tmp_path / "base")
    changes = {"base": tmp_path / "base", "optimizer": {"learning_rate": 1e-4}}
    merged, apart = make_run("merged", result={"form": "model"}, **changes), make_run("apart", **changes)
    assert losses(train(merged)) == losses(train(apart))

    def loaded(path):
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    def loss(model):
        with torch.no_grad():
            return float(sum(by_hand(model, merged, step) for step in range(1, 4)))

    exact = peft.PeftModel.from_pretrained(loaded(tmp_path / "base"), apart / "artifact").merge_and_unload()
    wanted = loss(exact)
    learned = loss(loaded(tmp_path / "base")) - wanted
    kept = abs(loss(loaded(merged / "artifact")) - wanted)
    taken_back = abs(loss(exact.bfloat16().float()) - wanted)
    assert taken_back > 0.3 * learned, "the test needs changes of less than half a step"
    assert kept < 0.1 * learned


@pytest.mark.parametrize("place", ["pass-done:5", "artifact-half-written"])
def test_a_run_of_all_weights_that_is_killed_goes_on_bit_for_bit(make_whole, place):
    changes = {"data": {"split_fraction": 0.2}, "model": {"compute": "bf16"}}
    whole, killed = make_whole("whole", **changes), make_whole("killed", **changes)
    assert finish(whole) == 0
    assert finish(killed, **{VARIABLE: place}) == -signal.SIGKILL
    assert finish(killed, attempt=2) == 0
    told = {event.step: event.loss for attempt in (1, 2) for event in said(killed, attempt) if event.kind == "progress"}
    assert list(told.values()) == losses(said(whole))
    assert said(killed, 2)[-1].files == said(whole)[-1].files


def test_fp16_losses_are_scaled_so_that_gradients_are_those_of_float32(make_run):
    """Gradients of 1e-8 are nothing in fp16; an overflow costs a step and halves the scale."""
    curves = []
    for compute in ("fp16", "fp32"):
        run = make_run(compute, model={"compute": compute}, schedule={"tokens_per_pass": 400})
        curves.append([(event.loss, event.grad_norm) for event in train(run) if event.kind == "progress"])
    assert all(math.isfinite(value) for pair in curves[0] for value in pair)
    torch.testing.assert_close(torch.tensor(curves[0]), torch.tensor(curves[1]), rtol=0.02, atol=0.01)


def test_the_last_weights_are_exported_where_the_plan_says_so(make_run):
    run = make_run(
        data={"split_fraction": 0.2}, optimizer={"learning_rate": 3.0, "warmup_steps": 0}, result={"step": "last"}
    )
    last = train(run)[-1]
    assert (last.exported_step, last.reason) == (last.step, "last")


def test_losses_are_logged_each_few_steps_as_the_mean_over_their_tokens(make_run):
    every, third = make_run("every"), make_run("third", schedule={"log_every": 4})
    all_of_them, few = train(every), train(third)
    told = [(event.step, event.tokens) for event in few if event.kind == "progress"]
    assert [step for step, _ in told] == [4, 6]
    assert told[-1][1] == [event.tokens for event in all_of_them if event.kind == "progress"][-1]
    first = losses(all_of_them)[:4]
    assert min(first) < losses(few)[0] < max(first)


@pytest.mark.parametrize("whole", [False, True])
def test_noise_on_embeddings_and_smoothed_labels_change_learning_and_nothing_else(make_run, make_whole, whole):
    """The probe, as a server asks it, and validation losses are those of the plain model."""
    make = make_whole if whole else make_run
    split = {"data": {"split_fraction": 0.2}, "optimizer": {"learning_rate": 0.0, "min_learning_rate": 0.0}}
    plain = train(make("plain", **split))
    for objective in ({"embedding_noise": 5.0}, {"label_smoothing": 0.1}):
        noisy = train(make(min(objective), objective=objective, **split))
        assert losses(noisy) != losses(plain)
        assert losses(noisy, "validated") == losses(plain, "validated")
        assert [file for file in noisy[-1].files if "probe" in file.path] == [
            file for file in plain[-1].files if "probe" in file.path
        ]
