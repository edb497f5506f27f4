"""What events become in a job's status and series."""

from __future__ import annotations

import pytest

from tunesmith.control.logs import in_words
from tunesmith.control.progress import SHOWN_CHARACTERS, details, points
from tunesmith.handoff.events import Busy, CheckpointSaved, PreparedRows, Progress, Sample, Sampled, Started, Warned


def progress(**changes) -> Progress:
    values = {"step": 4, "epoch": 1, "loss": 2.0, "learning_rate": 0.1, "grad_norm": 3.0, "tokens": 90, "seconds": 30.0}
    return Progress.model_validate(values | changes)


def test_progress_shows_speed_time_left_padding_memory_and_utilisation():
    shown = details(progress(padding=0.12345, peak_memory=3 << 30, utilisation=0.61), {"max_steps": 12})
    assert shown["tokens_per_second"] == 3.0
    assert shown["eta_seconds"] == 60.0
    assert shown["percentage_done"] == 33
    assert (shown["padding"], shown["peak_memory_bytes"], shown["utilisation"]) == (0.1235, 3 << 30, 0.61)


def test_what_the_engine_does_not_know_is_not_shown():
    shown = details(progress(), {"max_steps": 12})
    assert not {"peak_memory_bytes", "utilisation"} & set(shown)
    saved = details(CheckpointSaved(step=4, epoch=1, path="checkpoints/step-000004"), {})
    assert set(saved) == {"checkpoint_path", "checkpoint_step"}


def test_progress_that_comes_every_few_steps_counts_all_of_them():
    """With logging_steps 4, 4 steps in 30 s leave 60 s for the other 8."""
    shown = [
        details(progress(step=step, seconds=7.5 * step, tokens=22 * step), {"max_steps": 12}) for step in (4, 8, 12)
    ]
    assert [(each["percentage_done"], each["eta_seconds"]) for each in shown] == [(33, 60.0), (66, 30.0), (100, 0.0)]


def test_loss_rate_norm_and_speed_are_series():
    assert points(progress()) == [
        ("train_loss", 4, 1, 2.0),
        ("lr", 4, 1, 0.1),
        ("grad_norm", 4, 1, 3.0),
        ("tokens_per_second", 4, 1, 3.0),
    ]


def test_a_sign_of_life_changes_nothing_and_is_a_line_of_the_log():
    sign = Busy(step=7, doing="validation")
    assert (details(sign, {"step": 7}), points(sign)) == ({}, [])
    assert in_words(sign) == "step 7: its validation goes on"
    assert in_words(Busy(step=8, doing="step")) == "step 8 goes on"


def test_what_each_attempt_warns_of_again_is_shown_once():
    cut, slow = Warned(message="3 rows were cut"), Warned(message="it is slow")
    known: dict[str, object] = {"warnings": ["from the request"]}
    for said in (cut, slow, cut):
        known |= details(said, known)
    assert known["warnings"] == ["from the request", "3 rows were cut", "it is slow"]


def test_samples_are_shown_where_a_prompt_ends_and_an_answer_begins():
    long = "a" * 2000 + "b"
    asked = Sampled(
        step=7, samples=(Sample(prompt="who", said="me", wanted="you"), Sample(prompt=long, said=long, wanted=long))
    )
    shown = details(asked, {})
    assert shown["samples_step"] == 7
    assert shown["samples"][0] == {"prompt": "who", "said": "me", "wanted": "you"}
    cut = shown["samples"][1]
    assert cut["prompt"] == "…" + long[-SHOWN_CHARACTERS:]
    assert cut["said"] == cut["wanted"] == long[:SHOWN_CHARACTERS] + "…"


def test_a_checkpoint_says_its_size_and_what_a_crash_costs_from_there():
    saved = CheckpointSaved(step=4, epoch=1, path="checkpoints/step-000004", size=59_000_000, at_stake=61.26)
    shown = details(saved, {})
    assert (shown["checkpoint_bytes"], shown["at_stake_seconds"]) == (59_000_000, 61.3)


@pytest.mark.parametrize("packs", [0, 6])
def test_packs_are_shown_where_rows_are_packed(packs):
    rows = PreparedRows(
        training_rows=40,
        validation_rows=4,
        training_tokens=400,
        trained_tokens=200,
        truncated_rows=0,
        dropped_rows=0,
        steps=3,
        steps_per_epoch=3,
        packs=packs,
        packs_per_step=2 if packs else 0,
    )
    shown = details(rows, {})
    assert (shown.get("packs"), shown.get("packs_per_step")) == ((6, 2) if packs else (None, None))


def test_the_type_of_the_stored_weights_is_shown():
    started = Started(
        steps=3,
        epochs=1,
        device="cpu",
        compute="bf16",
        threads=2,
        trained_parameters=10,
        adapted_modules=0,
        stored_as="bfloat16",
    )
    assert details(started, {})["stored_as"] == "bfloat16"
