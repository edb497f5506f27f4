"""`tunesmith`: the terminal's way to the platform, through the SDK."""

from __future__ import annotations

from collections import UserDict
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_group

from tunesmith import __version__
from tunesmith.cli.session import Output, Root, Session

COMMANDS = {
    "up": "admin:up",
    "backup": "admin:backup",
    "restore": "admin:restore",
    "gc": "admin:gc",
    "doctor": "doctor:doctor",
    "deploy": "deploy:deploy",
    "chat": "chat:chat",
    "schema": "schema:schema",
    "workspaces": "workspaces:app",
    "projects": "projects:app",
    "secrets": "secrets:app",
    "filesets": "filesets:app",
    "files": "files:app",
    "models": "models:app",
    "adapters": "adapters:app",
    "data": "data:app",
    "jobs": "jobs:app",
    "webhooks": "webhooks:app",
    "deployments": "deploy:app",
}
"""Where each command, or group of them, is written: module of this room, and the name in it."""


class Late(UserDict[str, Any]):
    """Commands by name, each made when it is asked for: to make all of them takes longer than most of them run."""

    def __getitem__(self, name: str) -> Any:
        """The command; KeyError if there is none of that name."""
        found = super().__getitem__(name)
        if isinstance(found, str):
            found = self.data[name] = _made(name, found)
        return found


class Line(Root):
    """The command line with all of `COMMANDS`."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.commands = Late(COMMANDS)


def _made(name: str, where: str) -> Any:
    module, _, what = where.partition(":")
    found = getattr(import_module(f"tunesmith.cli.{module}"), what)
    alone = typer.Typer()
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name)(found)
    return get_group(alone).commands[name]


app = typer.Typer(
    cls=Line,
    help="Your data and a base model in, a model that answers out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
