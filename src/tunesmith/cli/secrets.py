"""`tunesmith secrets`. A value comes from the standard input or a hidden prompt: arguments can be read by others."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli import lists, render
from tunesmith.cli.session import make_sure, session
from tunesmith.errors import Invalid

if TYPE_CHECKING:
    from tunesmith.api.secrets import Secret

app = typer.Typer(help="Secrets: values that jobs and storages need and nobody sees.", no_args_is_help=True)

COLUMNS: render.Columns[Secret] = {
    "NAME": lambda secret: secret.name,
    "DESCRIPTION": lambda secret: secret.description,
    "PROJECT": lambda secret: secret.project,
    "UPDATED": lambda secret: secret.updated_at,
}
SECRET: render.Columns[Secret] = {
    "secret": lambda secret: f"{secret.workspace}/{secret.name}",
    "description": lambda secret: secret.description,
    "project": lambda secret: secret.project,
    "created": lambda secret: secret.created_at,
    "updated": lambda secret: secret.updated_at,
}

ValueStdin = Annotated[
    bool, typer.Option("--value-stdin", help="Read the value from the standard input (so it is in a pipe anyway).")
]


@app.command("list")
def list_secrets(
    ctx: typer.Context,
    filter: lists.Filter = None,
    sort: lists.Sort = None,
    limit: lists.Limit = None,
    all_workspaces: lists.AllWorkspaces = False,
    project: lists.OfProject = None,
) -> None:
    """Secrets, without their values."""
    shell = session(ctx)
    asked = lists.Asked(filter, sort, limit, all_workspaces, project)
    nothing = "no secrets yet; `tunesmith secrets create NAME` makes one"
    lists.show(shell, shell.client.secrets.list, COLUMNS, nothing, asked)


@app.command()
def show(ctx: typer.Context, name: str) -> None:
    """That there is a secret, and since when; not its value."""
    shell = session(ctx)
    render.one(shell, shell.client.secrets.retrieve(name), SECRET)


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    value_stdin: ValueStdin = False,
    description: lists.Description = None,
    project: lists.Project = None,
) -> None:
    """Keep a value, asked for without showing it, or read from a pipe: `pass hf | tunesmith secrets create hf`."""
    shell = session(ctx)
    value = read_value(name, value_stdin)
    render.one(shell, shell.client.secrets.create(name, value=value, description=description, project=project), SECRET)


@app.command()
def update(
    ctx: typer.Context,
    name: str,
    value_stdin: ValueStdin = False,
    description: lists.Description = None,
    project: lists.Project = None,
) -> None:
    """Change a secret's value; with --description or --project alone, only those."""
    shell = session(ctx)
    beside = description is not None or project is not None
    value = None if beside and not value_stdin else read_value(name, value_stdin)
    changed = shell.client.secrets.update(name, value=value, description=description, project=project)
    render.one(shell, changed, SECRET)


@app.command()
def delete(ctx: typer.Context, name: str, yes: lists.Yes = False) -> None:
    """Forget a secret."""
    shell = session(ctx)
    make_sure(f"Delete secret {name}? Nobody can bring its value back.", yes)
    shell.client.secrets.delete(name)
    render.gone(shell, name)


@app.command()
def access(ctx: typer.Context, name: str) -> None:
    """A secret's value, where the platform gives it to you."""
    render.print_json(session(ctx).client.secrets.access(name))


@app.command()
def rotate(ctx: typer.Context) -> None:
    """Encrypt all secrets anew, under a new key."""
    shell = session(ctx)
    done = shell.client.secrets.rotate()
    if shell.json:
        render.print_json(done.model_dump(mode="json"))
        return
    count = done.rotated_secrets
    typer.echo(
        "1 secret is encrypted under a new key" if count == 1 else f"{count:,} secrets are encrypted under a new key"
    )


def read_value(name: str, stdin: bool) -> str:
    """A secret's value, from the standard input if told so or if it is no terminal, else from a hidden prompt.

    One line end at the end does not belong to it. Invalid if there is none, or if it is no text.
    """
    if not stdin and sys.stdin.isatty():
        asked: str = typer.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True, err=True)
        return asked
    try:
        value = typer.get_binary_stream("stdin").read().decode()
    except UnicodeDecodeError:
        raise Invalid("the value on the standard input is not UTF-8 text; encode it, as base64 does") from None
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise Invalid(f"there is no value on the standard input: pipe it in, as in `pass show {name} | tunesmith ...`")
    return value
