"""A job's progress: a bar on a terminal, a line now and then elsewhere. The demonstration uses it, too.

A platform that is started again meanwhile is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from tunesmith.api.base import JsonObject
from tunesmith.api.jobs import DOWNLOAD, REGISTRATION, TRAINING, UPLOAD, JobState, JobStatus
from tunesmith.client.errors import APIError, NotFoundError
from tunesmith.client.sync.client import Tunesmith

PHASES = {
    DOWNLOAD: "preparing",
    TRAINING: "training",
    UPLOAD: "storing the result",
    REGISTRATION: "registering the result",
}
"""What a step's time is spent on, as long as the step says nothing more exact."""

PATIENCE_SECONDS = 300.0
"""That a platform which does not answer is asked again: it may be on its way back."""
SERVER_STOPPED = "server stopped"
"""Why a job rests that goes on by itself."""
LINES_PER_JOB = 20
"""Without a terminal, progress is told at every twentieth of the way."""


def watch(client: Tunesmith, name: str, workspace: str | None = None, console: Console | None = None) -> JobState:
    """Show a job's progress until it is completed, failed or cancelled; returns its last state.

    APIConnectionError when the platform stays away for PATIENCE_SECONDS, NotFoundError when the job is deleted.
    """
    with progress_view(console or Console(stderr=True)) as view:
        patient: Any = {"workspace": workspace, "on_silence": view.silence, "patience": PATIENCE_SECONDS}
        try:
            for event in client.jobs.events(name, kinds=["status"], **patient):
                if event.state:
                    view.show(event.state)
        except NotFoundError:  # no such job, or an older platform without this route: the status says which
            return client.jobs.wait(name, on_status=view.show, **patient)
    return client.jobs.get_status(name, workspace=workspace)


@contextmanager
def progress_view(console: Console) -> Iterator[JobView]:
    """The view that suits the console."""
    if not console.is_terminal:
        yield JobView(console)
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=14),
        TextColumn("{task.fields[numbers]}", style="cyan"),
        console=console,
    )
    with bar:
        yield BarView(console, bar)


class JobView:
    """Tells each change of phase, each warning once, and progress now and then, a line each."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: tuple[str, object] = ("", -1)
        self._warned: set[str] = set()
        self._silent = False

    def show(self, state: JobState) -> None:
        """Take in what the job says now."""
        self._silent = False
        for warning in state.status_details.get("warnings") or []:
            if str(warning) not in self._warned:
                self._warned.add(str(warning))
                self._console.print(f"[yellow]warning:[/] {escape(str(warning))}", highlight=False, soft_wrap=True)
        self._draw(state)

    def silence(self, error: APIError) -> None:
        """Take in that nobody answers."""
        if not self._silent:
            self._silent = True
            self._told = ("", -1)  # whatever comes after it is worth a line
            self._lose(error)

    def _draw(self, state: JobState) -> None:
        phase, beside = phase_of(state), beside_of(state)
        step, steps = steps_of(state.status_details)
        part: object = beside if waits(state) else step * LINES_PER_JOB // steps if steps else 0
        if (phase, part) == self._told:
            return
        self._told = (phase, part)
        said = "  ".join(filter(None, [phase, beside if step or waits(state) else ""]))
        self._console.print(said, highlight=False, markup=False, soft_wrap=True)

    def _lose(self, error: APIError) -> None:
        said = f"no answer, asking again for {PATIENCE_SECONDS / 60:.0f} minutes: {error}"
        self._console.print(said, style="yellow", highlight=False, markup=False, soft_wrap=True)


class BarView(JobView):
    """The same on a terminal: one bar."""

    def __init__(self, console: Console, bar: Progress) -> None:
        super().__init__(console)
        self._bar = bar
        self._task: TaskID = bar.add_task("waiting", total=None, numbers="")

    def _draw(self, state: JobState) -> None:
        step, steps = steps_of(state.status_details)
        done = state.status is JobStatus.COMPLETED
        self._bar.update(
            self._task,
            description=phase_of(state),
            total=steps or (1 if done else None),
            completed=(steps or 1) if done else step,
            numbers=beside_of(state),
        )
        if state.status.final:
            self._bar.stop_task(self._task)

    def _lose(self, error: APIError) -> None:  # noqa: ARG002 the bar has no room for it
        self._bar.update(self._task, description="no answer, asking again")


def phase_of(state: JobState) -> str:
    """What the job is doing, in a word or two."""
    if state.status is not JobStatus.ACTIVE:
        return str(state.status)
    active = next((step for step in state.steps if step.status is JobStatus.ACTIVE), None)
    said = (active.status_details if active else state.status_details).get("phase")
    if said and str(said) != "completed":
        return str(said).replace("_", " ")
    return PHASES.get(active.name, active.name) if active else str(state.status)


def waits(state: JobState) -> bool:
    """Whether the job stands in a queue, or rests."""
    return bool(queue_of(state) or pause_of(state))


def beside_of(state: JobState) -> str:
    """What is worth saying beside the phase: why it waits, why it rests, or how far it is."""
    return queue_of(state) or pause_of(state) or numbers_of(state.status_details)


def queue_of(state: JobState) -> str:
    """`2 of 5: waits for 1 of 1 devices`; "" for a job that is in no queue."""
    queue = state.status_details.get("queue")
    if state.status.final or not isinstance(queue, dict) or "position" not in queue:
        return ""
    place = f"{queue['position']} of {queue['of']}" if queue.get("of") else str(queue["position"])
    return ": ".join(filter(None, [place, str(queue.get("reason") or "")]))


def pause_of(state: JobState) -> str:
    """Why a job rests, where, and what ends that; "" for one that does not rest."""
    if state.status is not JobStatus.PAUSED:
        return ""
    details = state.status_details
    step = details.get("paused_at_step") or details.get("checkpoint_step")
    at = f"at step {step}" if step else ""
    why = str(details.get("paused_because") or "")
    if why == SERVER_STOPPED:
        return "; ".join(filter(None, [at, "the server was stopped, and goes on with it when it is up again"]))
    return "; ".join(filter(None, [at, f"`tunesmith jobs resume {state.name}` lets it go on"]))


def steps_of(details: JsonObject) -> tuple[int, int]:
    """Optimizer steps done and in all; zeros while they are not known."""
    return int(details.get("step") or 0), int(details.get("max_steps") or 0)


def numbers_of(details: JsonObject) -> str:
    """`12/54  loss 1.234  321 tok/s  1:05 left  val 1.300  lr 1.0e-03  2.1 GB  54% of peak`, as far as it is known.

    What a narrow terminal cuts off comes last.
    """
    step, steps = steps_of(details)
    known = [
        f"{step}/{steps}" if steps else "",
        _number("loss {:.3f}", details.get("train_loss")),
        _number("{:,.0f} tok/s", details.get("tokens_per_second")),
        f"{clock(details['eta_seconds'])} left" if step < steps and details.get("eta_seconds") is not None else "",
        _number("val {:.3f}", details.get("val_loss")),
        _number("lr {:.1e}", details.get("lr")),
        _number("{:.1f} GB", _of(details.get("peak_memory_bytes"), 1e-9)),
        _number("{:.0f}% of peak", _of(details.get("utilisation"), 100)),
    ]
    return "  ".join(filter(None, known))


def clock(seconds: float) -> str:
    """`1:05`, `1:02:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def failure_of(state: JobState) -> str:
    """Why the job ended as it did, in a sentence."""
    message = (state.error_details or {}).get("message")
    return str(message) if message else f"job '{state.name}' ended as {state.status} and did not say why"


def _of(value: object, factor: float) -> object:
    return value * factor if isinstance(value, int | float) else value


def _number(form: str, value: object) -> str:
    return form.format(value) if isinstance(value, int | float) else ""
