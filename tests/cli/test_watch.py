"""The bar on a terminal."""

from __future__ import annotations

import io
import re

import httpx
import pytest
from rich.console import Console
from rich.progress import Progress

from tests.client import samples
from tests.client.samples import Platform, state, told
from tunesmith.api.jobs import JobState
from tunesmith.cli import watch
from tunesmith.client.errors import APIError, NotFoundError


def test_the_bar_shows_phase_step_loss_speed_and_time_left():
    training = samples.step("training", "active")
    states = [
        state("active", steps=[samples.step("model-and-dataset-download", "active", phase="preparing_rows")]),
        state(
            "active", steps=[training], step=27, max_steps=54, train_loss=0.5, tokens_per_second=1234, eta_seconds=3725
        ),
        state("completed", step=54, max_steps=54, train_loss=0.25),
    ]
    platform = Platform(told(*states), states[-1])
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    last = watch.watch(platform.client(), "first", console=console)
    assert last.status == "completed"
    assert re.search(r"completed ━+ 54/54  loss 0\.250", screen.getvalue())


def test_a_platform_without_the_stream_is_asked_again_and_again():
    missing = httpx.Response(404, json={"detail": "Not Found"})
    platform = Platform(missing, state("active", step=1, max_steps=2), state("completed", step=2, max_steps=2))
    screen = io.StringIO()
    assert watch.watch(platform.client(), "first", console=Console(file=screen)).status == "completed"
    assert "completed" in screen.getvalue()
    gone = httpx.Response(404, json={"detail": "Job 'first' not found"})
    with pytest.raises(NotFoundError, match="'first' not found"):
        watch.watch(Platform(gone, gone).client(), "first", console=Console(file=screen))


def test_the_bar_shows_why_a_job_waits_and_that_nobody_answers():
    bar = Progress()
    view = watch.BarView(Console(file=io.StringIO()), bar)
    queue = {"position": 2, "of": 5, "reason": "waits for 1 of 1 devices"}
    view.show(JobState.model_validate(state("active", phase="queued", queue=queue)))
    (task,) = bar.tasks
    assert (task.description, task.fields["numbers"]) == ("queued", "2 of 5: waits for 1 of 1 devices")
    view.silence(APIError("nobody there"))
    assert task.description == "no answer, asking again"
    view.show(JobState.model_validate(state("paused", paused_at_step=3)))
    assert (task.description, task.fields["numbers"]) == (
        "paused",
        "at step 3; `tunesmith jobs resume first` lets it go on",
    )


def test_phases_are_said_in_words():
    def phase(*steps, status="active"):
        return watch.phase_of(JobState.model_validate(state(status, steps=list(steps))))

    assert phase(status="pending") == "pending"
    assert phase(samples.step("training", "active", phase="checkpoint_saved")) == "checkpoint saved"
    done = samples.step("training", "completed", phase="completed")
    assert phase(done, samples.step("model-upload", "active")) == "storing the result"
    assert phase(done) == "active"


def test_time_reads_like_a_clock():
    assert [watch.clock(seconds) for seconds in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]
