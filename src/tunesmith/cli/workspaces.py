"""`tunesmith workspaces`: the boundaries around everything else, and who may work in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli import lists, render
from tunesmith.cli.session import make_sure, session

if TYPE_CHECKING:
    from tunesmith.api.workspaces import Member, Workspace

app = typer.Typer(help="Workspaces: boundaries around everything else.", no_args_is_help=True)
members = typer.Typer(help="Who may work in the workspace.", no_args_is_help=True)
app.add_typer(members, name="members")

COLUMNS: render.Columns[Workspace] = {
    "NAME": lambda workspace: workspace.name,
    "DESCRIPTION": lambda workspace: workspace.description,
    "CREATED": lambda workspace: workspace.created_at,
}
WORKSPACE: render.Columns[Workspace] = {
    "workspace": lambda workspace: workspace.name,
    "description": lambda workspace: workspace.description,
    "created": lambda workspace: workspace.created_at,
    "updated": lambda workspace: workspace.updated_at,
}
MEMBERS: render.Columns[Member] = {
    "PRINCIPAL": lambda member: member.principal,
    "ROLES": lambda member: ", ".join(member.roles),
    "SINCE": lambda member: member.granted_at,
}
MEMBER: render.Columns[Member] = {heading.lower(): get for heading, get in MEMBERS.items()}

Roles = Annotated[list[str] | None, typer.Option("--role", help="Viewer, Editor or Admin. Repeatable.")]


@app.command("list")
def list_workspaces(
    ctx: typer.Context, filter: lists.Filter = None, sort: lists.Sort = None, limit: lists.Limit = None
) -> None:
    """Workspaces."""
    shell = session(ctx)
    asked = lists.Asked(filter, sort, limit)
    nothing = "no workspaces; `tunesmith workspaces create NAME` makes one"
    lists.show(shell, shell.client.workspaces.list, COLUMNS, nothing, asked)


@app.command()
def show(ctx: typer.Context, name: str) -> None:
    """A workspace."""
    shell = session(ctx)
    render.one(shell, shell.client.workspaces.retrieve(name), WORKSPACE)


@app.command()
def create(
    ctx: typer.Context, name: str, description: lists.Description = None, exist_ok: lists.ExistOk = False
) -> None:
    """Make a workspace."""
    shell = session(ctx)
    made = shell.client.workspaces.create(name, description=description, exist_ok=exist_ok)
    render.one(shell, made, WORKSPACE)


@app.command()
def update(ctx: typer.Context, name: str, description: lists.Description = None) -> None:
    """Change a workspace."""
    shell = session(ctx)
    render.one(shell, shell.client.workspaces.update(name, description=description), WORKSPACE)


@app.command()
def delete(ctx: typer.Context, name: str, yes: lists.Yes = False) -> None:
    """Remove a workspace with everything in it."""
    shell = session(ctx)
    make_sure(f"Delete workspace {name} with all its models, filesets, secrets, jobs and deployments?", yes)
    shell.client.workspaces.delete(name)
    render.gone(shell, name)


@members.command("list")
def list_members(ctx: typer.Context) -> None:
    """Members of the workspace."""
    shell = session(ctx)
    nothing = "no members yet; `tunesmith workspaces members create PRINCIPAL` lets somebody in"
    render.many(shell, shell.client.workspaces.members.list().data, MEMBERS, nothing)


@members.command("create")
def create_member(ctx: typer.Context, principal: str, role: Roles = None) -> None:
    """Let somebody in, as Editor unless --role says otherwise."""
    shell = session(ctx)
    render.one(shell, shell.client.workspaces.members.create(principal, roles=_roles(role)), MEMBER)


@members.command("update")
def update_member(ctx: typer.Context, principal: str, role: Roles = None) -> None:
    """Replace what somebody may do."""
    shell = session(ctx)
    if not role:
        raise typer.BadParameter("say what the member may do", param_hint="--role")
    render.one(shell, shell.client.workspaces.members.update(principal, roles=_roles(role)), MEMBER)


@members.command("delete")
def delete_member(ctx: typer.Context, principal: str, yes: lists.Yes = False) -> None:
    """Take somebody out."""
    shell = session(ctx)
    make_sure(f"Take {principal} out of workspace {shell.client.workspace}?", yes)
    shell.client.workspaces.members.delete(principal)
    render.gone(shell, principal)


def _roles(given: list[str] | None) -> Any:
    """As the SDK takes them, which checks them."""
    return [role.capitalize() for role in given] if given else None
