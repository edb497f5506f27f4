"""`tunesmith jobs`: submit a job from a file, follow it, stop it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli import lists, render, specfile
from tunesmith.cli.session import FAILED, INTERRUPTED, MISUSED, Session, complain, note, session
from tunesmith.errors import Invalid

if TYPE_CHECKING:
    from tunesmith.api.jobs import Job, JobState

app = typer.Typer(help="Fine-tuning jobs.", no_args_is_help=True)

COLUMNS: render.Columns[Job] = {
    "NAME": lambda job: job.name,
    "STATUS": lambda job: job.status,
    "PROGRESS": lambda job: _percent(job.status_details.get("percentage_done")),
    "MODEL": lambda job: job.spec.get("model"),
    "CREATED": lambda job: job.created_at,
}


@app.command()
def submit(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="YAML or JSON with the job's spec; - reads the standard input.")],
    name: Annotated[str | None, typer.Option(help="Name of the job; one is made if none is given.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Set a field, as in training.lora.rank=64. Repeatable."),
    ] = None,
    project: lists.Project = None,
    watched: Annotated[bool, typer.Option("--watch", help="Show progress until the job ends.")] = False,
) -> None:
    """Submit a job."""
    shell = session(ctx)
    try:
        job = specfile.read(file, assignments or ())
        made = shell.client.customization.automodel.jobs.create(
            spec=job.spec, name=name or job.name, description=job.description, project=project
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
    lists.show(shell, shell.client.jobs.list, COLUMNS, nothing, asked, status=status)


@app.command()
def show(ctx: typer.Context, name: str) -> None:
    """How a job is doing."""
    from tunesmith.api.jobs import JobStatus
    from tunesmith.cli.watch import failure_of, numbers_of, phase_of

    shell = session(ctx)
    columns: render.Columns[JobState] = {
        "job": lambda state: state.name,
        "status": lambda state: state.status,
        "phase": lambda state: phase_of(state) if state.status is JobStatus.ACTIVE else None,
        "progress": lambda state: numbers_of(state.status_details),
        "error": lambda state: failure_of(state) if state.status is JobStatus.ERROR else None,
        "warnings": lambda state: "\n".join(map(str, state.status_details.get("warnings") or [])),
        "steps": lambda state: "\n".join(f"{step.name}: {step.status}" for step in state.steps),
        "created": lambda state: state.created_at,
        "updated": lambda state: state.updated_at,
    }
    render.one(shell, shell.client.jobs.get_status(name), columns)


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
    """Ask a job to end."""
    shell = session(ctx)
    job = shell.client.jobs.cancel(name)
    if shell.json:
        render.print_json(job.model_dump(mode="json"))
        return
    typer.echo(f"{job.name} is {job.status}")


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
        raise typer.Exit(FAILED)
    if not shell.json:
        typer.echo(f"{name} is completed")


def _percent(value: object) -> str | None:
    return f"{value}%" if isinstance(value, int | float) else None
