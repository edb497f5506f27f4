"""A job's progress: a bar on a terminal, a line now and then elsewhere. The demonstration uses it, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from tunesmith.api.base import JsonObject
from tunesmith.api.jobs import DOWNLOAD, REGISTRATION, TRAINING, UPLOAD, JobState, JobStatus
from tunesmith.client.sync.client import Tunesmith

PHASES = {
    DOWNLOAD: "preparing",
    TRAINING: "training",
    UPLOAD: "storing the result",
    REGISTRATION: "registering the result",
}
"""What a step's time is spent on, as long as the step says nothing more exact."""

LINES_PER_JOB = 20
"""Without a terminal, progress is told at every twentieth of the way."""


def watch(client: Tunesmith, name: str, workspace: str | None = None, console: Console | None = None) -> JobState:
    """Show a job's progress until it is completed, failed or cancelled; returns its last state."""
    with progress_view(console or Console(stderr=True)) as view:
        return client.jobs.wait(name, workspace=workspace, on_status=view.show)


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
        self._phase = ""
        self._part = -1
        self._warned: set[str] = set()

    def show(self, state: JobState) -> None:
        """Take in what the job says now."""
        for warning in state.status_details.get("warnings") or []:
            if str(warning) not in self._warned:
                self._warned.add(str(warning))
                self._console.print(f"[yellow]warning:[/] {escape(str(warning))}", highlight=False, soft_wrap=True)
        self._draw(state)

    def _draw(self, state: JobState) -> None:
        phase, details = phase_of(state), state.status_details
        step, steps = steps_of(details)
        part = step * LINES_PER_JOB // steps if steps else 0
        if (phase, part) == (self._phase, self._part):
            return
        self._phase, self._part = phase, part
        said = "  ".join(filter(None, [phase, numbers_of(details) if step else ""]))
        self._console.print(said, highlight=False, markup=False, soft_wrap=True)


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
            numbers=numbers_of(state.status_details),
        )
        if state.status.final:
            self._bar.stop_task(self._task)


def phase_of(state: JobState) -> str:
    """What the job is doing, in a word or two."""
    if state.status is not JobStatus.ACTIVE:
        return str(state.status)
    active = next((step for step in state.steps if step.status is JobStatus.ACTIVE), None)
    said = (active.status_details if active else state.status_details).get("phase")
    if said and str(said) != "completed":
        return str(said).replace("_", " ")
    return PHASES.get(active.name, active.name) if active else str(state.status)


def steps_of(details: JsonObject) -> tuple[int, int]:
    """Optimizer steps done and in all; zeros while they are not known."""
    return int(details.get("step") or 0), int(details.get("max_steps") or 0)


def numbers_of(details: JsonObject) -> str:
    """`12/54  loss 1.234  321 tok/s  1:05 left  val 1.300  lr 1.0e-03`, as far as it is known: what a narrow terminal
    cuts off comes last."""
    step, steps = steps_of(details)
    known = [
        f"{step}/{steps}" if steps else "",
        _number("loss {:.3f}", details.get("train_loss")),
        _number("{:,.0f} tok/s", details.get("tokens_per_second")),
        f"{clock(details['eta_seconds'])} left" if step < steps and details.get("eta_seconds") is not None else "",
        _number("val {:.3f}", details.get("val_loss")),
        _number("lr {:.1e}", details.get("lr")),
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


def _number(form: str, value: object) -> str:
    return form.format(value) if isinstance(value, int | float) else ""
