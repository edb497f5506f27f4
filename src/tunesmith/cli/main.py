"""`tunesmith`: the terminal's way to the platform, through the SDK."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith import __version__
from tunesmith.cli import (
    adapters,
    admin,
    chat,
    data,
    deploy,
    doctor,
    files,
    filesets,
    jobs,
    models,
    projects,
    schema,
    secrets,
    webhooks,
    workspaces,
)
from tunesmith.cli.session import Output, Root, Session

app = typer.Typer(
    cls=Root,
    help="Your data and a base model in, a model that answers out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(admin.up)
app.command()(admin.backup)
app.command()(admin.restore)
app.command()(admin.gc)
app.command()(doctor.doctor)
app.command()(deploy.deploy)
app.command()(chat.chat)
app.command()(schema.schema)
app.add_typer(workspaces.app, name="workspaces")
app.add_typer(projects.app, name="projects")
app.add_typer(secrets.app, name="secrets")
app.add_typer(filesets.app, name="filesets")
app.add_typer(files.app, name="files")
app.add_typer(models.app, name="models")
app.add_typer(adapters.app, name="adapters")
app.add_typer(data.app, name="data")
app.add_typer(jobs.app, name="jobs")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(deploy.app, name="deployments")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tunesmith {__version__}")
        raise typer.Exit


@app.callback()
def globals_(
    ctx: typer.Context,
    base_url: Annotated[
        str | None,
        typer.Option(help="Address of the platform (default: $TUNESMITH_BASE_URL, else http://localhost:8080)."),
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(help="Workspace (default: $TUNESMITH_WORKSPACE, else default).")
    ] = None,
    output: Annotated[
        Output | None, typer.Option(help="How answers look (default: a table on a terminal, JSON when piped).")
    ] = None,
    version: Annotated[  # noqa: ARG001 its callback acts
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that all commands share."""
    shell = ctx.ensure_object(Session)
    shell.base_url, shell.workspace, shell.output = base_url, workspace, output


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
