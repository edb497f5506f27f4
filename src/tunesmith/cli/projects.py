"""`tunesmith projects`: labels for things that belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tunesmith.cli import lists, render
from tunesmith.cli.session import make_sure, session

if TYPE_CHECKING:
    from tunesmith.api.projects import Project

app = typer.Typer(help="Projects: labels for things that belong together.", no_args_is_help=True)

COLUMNS: render.Columns[Project] = {
    "NAME": lambda project: project.name,
    "DESCRIPTION": lambda project: project.description,
    "CREATED": lambda project: project.created_at,
}
PROJECT: render.Columns[Project] = {
    "project": lambda project: f"{project.workspace}/{project.name}",
    "description": lambda project: project.description,
    "created": lambda project: project.created_at,
    "updated": lambda project: project.updated_at,
}


@app.command("list")
def list_projects(
    ctx: typer.Context,
    filter: lists.Filter = None,
    sort: lists.Sort = None,
    limit: lists.Limit = None,
    all_workspaces: lists.AllWorkspaces = False,
) -> None:
    """Projects."""
    shell = session(ctx)
    asked = lists.Asked(filter, sort, limit, all_workspaces)
    nothing = "no projects yet; `tunesmith projects create NAME` makes one"
    lists.show(shell, shell.client.projects.list, COLUMNS, nothing, asked)


@app.command()
def show(ctx: typer.Context, name: str) -> None:
    """A project."""
    shell = session(ctx)
    render.one(shell, shell.client.projects.retrieve(name), PROJECT)


@app.command()
def create(
    ctx: typer.Context, name: str, description: lists.Description = None, exist_ok: lists.ExistOk = False
) -> None:
    """Make a project."""
    shell = session(ctx)
    made = shell.client.projects.create(name, description=description, exist_ok=exist_ok)
    render.one(shell, made, PROJECT)


@app.command()
def update(ctx: typer.Context, name: str, description: lists.Description = None) -> None:
    """Change a project."""
    shell = session(ctx)
    render.one(shell, shell.client.projects.update(name, description=description), PROJECT)


@app.command()
def delete(ctx: typer.Context, name: str, yes: lists.Yes = False) -> None:
    """Remove a project; what it labelled stays, without the label."""
    shell = session(ctx)
    make_sure(f"Delete project {name}? What belongs to it stays.", yes)
    shell.client.projects.delete(name)
    render.gone(shell, name)
