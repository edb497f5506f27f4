"""`tunesmith webhooks`: who is told of changes of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli import lists, render
from tunesmith.cli.session import make_sure, session

if TYPE_CHECKING:
    from tunesmith.api.webhooks import Webhook

app = typer.Typer(help="Webhooks: addresses that are told when a job's status changes.", no_args_is_help=True)

COLUMNS: render.Columns[Webhook] = {
    "NAME": lambda webhook: webhook.name,
    "URL": lambda webhook: webhook.url,
    "STATUSES": lambda webhook: ", ".join(webhook.statuses) or "all",
    "OWED": lambda webhook: webhook.owed,
}
WEBHOOK: render.Columns[Webhook] = {
    "webhook": lambda webhook: f"{webhook.workspace}/{webhook.name}",
    "url": lambda webhook: webhook.url,
    "secret": lambda webhook: webhook.secret,
    "statuses": lambda webhook: ", ".join(webhook.statuses) or "all",
    "owed": lambda webhook: webhook.owed,
    "description": lambda webhook: webhook.description,
    "project": lambda webhook: webhook.project,
    "created": lambda webhook: webhook.created_at,
}


@app.command("list")
def list_webhooks(
    ctx: typer.Context,
    filter: lists.Filter = None,
    sort: lists.Sort = None,
    limit: lists.Limit = None,
    all_workspaces: lists.AllWorkspaces = False,
    project: lists.OfProject = None,
) -> None:
    """Webhooks, and how many deliveries each is still owed."""
    shell = session(ctx)
    asked = lists.Asked(filter, sort, limit, all_workspaces, project)
    nothing = "no webhooks yet; `tunesmith webhooks create NAME --url URL --secret SECRET` makes one"
    lists.show(shell, shell.client.jobs.webhooks.list, COLUMNS, nothing, asked)


@app.command()
def show(ctx: typer.Context, name: str) -> None:
    """A webhook."""
    shell = session(ctx)
    render.one(shell, shell.client.jobs.webhooks.retrieve(name), WEBHOOK)


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    url: Annotated[str, typer.Option(help="Gets a POST; the server's TUNESMITH_WEBHOOK_HOSTS must list its host.")],
    secret: Annotated[str, typer.Option(help="Name of the secret that signs; `tunesmith secrets create` makes one.")],
    status: Annotated[
        list[str] | None, typer.Option(help="Tell only of this status; may be given several times (default: all).")
    ] = None,
    description: lists.Description = None,
    project: lists.Project = None,
) -> None:
    """Have an address told, signed, of every change of a job's status in the workspace."""
    shell = session(ctx)
    made = shell.client.jobs.webhooks.create(
        name, url=url, secret=secret, statuses=status, description=description, project=project
    )
    render.one(shell, made, WEBHOOK)


@app.command()
def delete(ctx: typer.Context, name: str, yes: lists.Yes = False) -> None:
    """Forget a webhook, and what it is still owed."""
    shell = session(ctx)
    make_sure(f"Delete webhook {name}? What it is still owed is not told any more.", yes)
    shell.client.jobs.webhooks.delete(name)
    render.gone(shell, name)
