"""`tunesmith jobs`: submit a job from a file, follow it, let it rest, stop it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tunesmith.cli import lists, render, specfile
from tunesmith.cli.session import FAILED, INTERRUPTED, MISUSED, Session, complain, make_sure, note, session
from tunesmith.errors import Invalid

if TYPE_CHECKING:
    from tunesmith.api.jobs import CustomizationJob, Job

app = typer.Typer(help="Fine-tuning jobs.", no_args_is_help=True)

Backend = Literal["automodel", "unsloth", "rl"]

COLUMNS: render.Columns[Job] = {
    "NAME": lambda job: job.name,
    "STATUS": lambda job: job.status,
    "PROGRESS": lambda job: _percent(job.status_details.get("percentage_done")),
    "BACKEND": lambda job: job.status_details.get("backend") or job.source,
    "MODEL": lambda job: _model(job),
    "CREATED": lambda job: job.created_at,
}


@app.command()
def submit(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="YAML or JSON with the job's spec; - reads the standard input.")],
    backend: Annotated[
        Backend | None, typer.Option(help="Whose spec it is, if the file does not say (default: automodel).")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Set a field, as in training.lora.rank=64. Repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job; one is made if none is given.")] = None,
    description: lists.Description = None,
    project: lists.Project = None,
    priority: Annotated[int | None, typer.Option(help="Who goes first: the higher, the sooner (default: 0).")] = None,
    watched: Annotated[bool, typer.Option("--watch", help="Show progress until the job ends.")] = False,
) -> None:
    """Submit a job."""
    shell = session(ctx)
    try:
        job = specfile.read(file, assignments or (), backend)
        fields = job.custom_fields if priority is None else {**(job.custom_fields or {}), "priority": priority}
        made = _calls(shell, job.backend).create(
            spec=job.spec,
            name=name or job.name,
            description=description or job.description,
            project=project or job.project,
            ownership=job.ownership,
            custom_fields=fields,
        )
    except Invalid as error:
        complain(error.message)
        raise typer.Exit(MISUSED) from error
    if watched:
        note(f"job {made.name}")
        _finish(shell, made.name)
        return
    for warning in made.status_details.get("warnings") or []:
        note(f"warning: {warning}")
    if shell.json:
        render.print_json(made.model_dump(mode="json"))
        return
    typer.echo(f"{made.name} is {made.status}; follow it with `tunesmith jobs watch {made.name}`")


@app.command("watch")
def watch_job(ctx: typer.Context, name: str) -> None:
    """Show a job's progress until it ends."""
    _finish(session(ctx), name)


@app.command("list")
def list_jobs(
    ctx: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only those in this state; several with commas.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Only those of this backend, of customization, or of whoever submitted them.")
    ] = None,
    filter: lists.Filter = None,
    sort: lists.Sort = None,
    limit: lists.Limit = None,
    all_workspaces: lists.AllWorkspaces = False,
    project: lists.OfProject = None,
) -> None:
    """Jobs, newest first."""
    shell = session(ctx)
    asked = lists.Asked(filter, sort, limit, all_workspaces, project)
    nothing = "no jobs yet; `tunesmith jobs submit FILE` makes one"
    if status or source:
        nothing = "nothing fits"
    lists.show(shell, shell.client.jobs.list, COLUMNS, nothing, asked, status=status, source=source)


@app.command()
def show(ctx: typer.Context, name: str) -> None:
    """What a job is, how it is doing, and what can be done next."""
    from tunesmith.cli.jobcard import CARD, Card

    shell = session(ctx)
    render.one(shell, Card(shell.client.jobs.retrieve(name), shell.client.jobs.get_status(name)), CARD)


@app.command()
def logs(
    ctx: typer.Context,
    name: str,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the job ends.")] = False,
) -> None:
    """What a job's processes wrote."""
    client = session(ctx).client
    if follow:
        for line in client.jobs.follow_logs(name):
            typer.echo(line.message)
            sys.stdout.flush()
        return
    page = client.jobs.get_logs(name, limit=1000)
    while True:
        for line in page.data:
            typer.echo(line.message)
        if not page.next_page:
            return
        page = client.jobs.get_logs(name, limit=1000, page_cursor=page.next_page)


@app.command()
def cancel(ctx: typer.Context, name: str) -> None:
    """Ask a job to end. One that has ended stays as it is."""
    shell = session(ctx)
    _changed(shell, shell.client.jobs.cancel(name))


@app.command()
def pause(ctx: typer.Context, name: str) -> None:
    """Let a job leave a checkpoint and rest; its devices are free then."""
    shell = session(ctx)
    job = shell.client.jobs.pause(name)
    _changed(shell, job, "" if job.status.final else f"`tunesmith jobs resume {job.name}` lets it go on")


@app.command()
def resume(ctx: typer.Context, name: str) -> None:
    """Let a paused job go on from its checkpoint, when its turn comes."""
    shell = session(ctx)
    job = shell.client.jobs.resume(name)
    _changed(shell, job, "" if job.status.final else f"`tunesmith jobs watch {job.name}` follows it")


@app.command()
def delete(ctx: typer.Context, name: str, yes: lists.Yes = False) -> None:
    """Remove a job, its log and its checkpoints; one that runs is ended first. What it made stays."""
    shell = session(ctx)
    make_sure(f"Delete job {name} with its log and checkpoints?", yes)
    shell.client.jobs.delete(name)
    render.gone(shell, name)


# -- what commands share -----------------------------------------------------------------------------------------------


def _calls(shell: Session, backend: str) -> Any:
    """The SDK's jobs in this dialect, or in the shorthand."""
    customization = shell.client.customization
    return customization.jobs if backend == specfile.SHORTHAND else getattr(customization, backend).jobs


def _finish(shell: Session, name: str) -> None:
    """Watch a job to its end; exit code 1 and the reason unless it completed."""
    from tunesmith.api.jobs import JobStatus
    from tunesmith.cli.watch import failure_of, watch

    try:
        state = watch(shell.client, name)
    except KeyboardInterrupt:
        note(
            f"job {name} goes on; `tunesmith jobs watch {name}` shows it again, `tunesmith jobs cancel {name}` ends it"
        )
        raise typer.Exit(INTERRUPTED) from None
    if shell.json:
        render.print_json(state.model_dump(mode="json"))
    if state.status is not JobStatus.COMPLETED:
        complain(failure_of(state) if state.status is JobStatus.ERROR else f"job '{name}' was cancelled")
        if state.status is JobStatus.ERROR:
            note(f"`tunesmith jobs logs {name}` shows what its processes wrote")
        raise typer.Exit(FAILED)
    if not shell.json:
        typer.echo(f"{name} is completed")


def _changed(shell: Session, job: Job | CustomizationJob, way_on: str = "") -> None:
    """Say what a job is now."""
    if shell.json:
        render.print_json(job.model_dump(mode="json"))
        return
    typer.echo(f"{job.name} is {job.status}" + (f"; {way_on}" if way_on else ""))


def _model(job: Job) -> str | None:
    model = job.spec.get("model")
    return model.get("name") if isinstance(model, dict) else model


def _percent(value: object) -> str | None:
    return f"{value}%" if isinstance(value, int | float) else None
