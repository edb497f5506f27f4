"""`tunesmith adapters`: trained weights beside a model's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli import lists, render
from tunesmith.cli.session import Session, make_sure, session
from tunesmith.errors import Invalid

if TYPE_CHECKING:
    from tunesmith.api.models import Adapter

app = typer.Typer(help="Adapters: trained weights beside a model's own.", no_args_is_help=True)

LINE: render.Columns[Adapter] = {
    "NAME": lambda adapter: adapter.name,
    "MODEL": lambda adapter: adapter.model,
    "RANK": lambda adapter: adapter.lora_config and adapter.lora_config.rank,
    "ENABLED": lambda adapter: adapter.enabled,
    "CREATED": lambda adapter: adapter.created_at,
}
ADAPTER: render.Columns[Adapter] = {
    "adapter": lambda adapter: f"{adapter.workspace}/{adapter.name}",
    "description": lambda adapter: adapter.description,
    "project": lambda adapter: adapter.project,
    "model": lambda adapter: adapter.model,
    "fileset": lambda adapter: adapter.fileset,
    "type": lambda adapter: adapter.finetuning_type,
    "rank": lambda adapter: adapter.lora_config and adapter.lora_config.rank,
    "alpha": lambda adapter: adapter.lora_config and adapter.lora_config.alpha,
    "enabled": lambda adapter: adapter.enabled,
    "created": lambda adapter: adapter.created_at,
}

Enabled = Annotated[
    bool | None, typer.Option("--enabled/--disabled", help="Whether deployments of the model serve it.")
]


@app.command("list")
def list_adapters(
    ctx: typer.Context,
    filter: lists.Filter = None,
    sort: lists.Sort = None,
    limit: lists.Limit = None,
    all_workspaces: lists.AllWorkspaces = False,
    project: lists.OfProject = None,
) -> None:
    """Adapters of all models."""
    shell = session(ctx)
    asked = lists.Asked(filter, sort, limit, all_workspaces, project)
    nothing = "no adapters yet; a completed LoRA job makes one, and so does `tunesmith adapters create`"
    lists.show(shell, shell.client.adapters.list, LINE, nothing, asked)


@app.command()
def show(ctx: typer.Context, name: str) -> None:
    """An adapter."""
    shell = session(ctx)
    render.one(shell, shell.client.adapters.retrieve(name), ADAPTER)


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    model: Annotated[str, typer.Option(help="Base that it was trained on, name or workspace/name.")],
    fileset: Annotated[str, typer.Option(help="Fileset with the weights as PEFT writes them.")],
    rank: Annotated[int | None, typer.Option(min=1, help="As adapter_config.json says, if not given.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Goes with --rank.")] = None,
    enabled: Enabled = None,
    description: lists.Description = None,
    project: lists.Project = None,
    exist_ok: lists.ExistOk = False,
) -> None:
    """Make an adapter of weights that were trained elsewhere."""
    if alpha is not None and rank is None:
        raise Invalid("--alpha needs --rank: the adapter's scale is alpha / rank")
    lora: dict[str, Any] | None = None
    if rank is not None:
        lora = {"rank": rank} if alpha is None else {"rank": rank, "alpha": alpha}
    shell = session(ctx)
    made = shell.client.adapters.create(
        name,
        model=model,
        fileset=fileset,
        enabled=enabled,
        lora_config=lora,
        description=description,
        project=project,
        exist_ok=exist_ok,
    )
    render.one(shell, made, ADAPTER)


@app.command()
def update(
    ctx: typer.Context,
    name: str,
    fileset: Annotated[str | None, typer.Option(help="Fileset with other weights for the same base.")] = None,
    enabled: Enabled = None,
    description: lists.Description = None,
    project: lists.Project = None,
) -> None:
    """Change an adapter; what is not given stays."""
    shell = session(ctx)
    changed = shell.client.adapters.update(
        name, fileset=fileset, enabled=enabled, description=description, project=project
    )
    render.one(shell, changed, ADAPTER)


@app.command()
def delete(ctx: typer.Context, name: str, yes: lists.Yes = False) -> None:
    """Remove an adapter; its files stay in their fileset."""
    shell = session(ctx)
    make_sure(f"Delete adapter {name}?", yes)
    shell.client.adapters.delete(name)
    render.gone(shell, name)


@app.command()
def enable(ctx: typer.Context, name: str) -> None:
    """Serve an adapter beside its base."""
    _switch(session(ctx), name, enabled=True)


@app.command()
def disable(ctx: typer.Context, name: str) -> None:
    """Stop serving an adapter, and keep it."""
    _switch(session(ctx), name, enabled=False)


def _switch(shell: Session, name: str, *, enabled: bool) -> None:
    render.one(shell, shell.client.adapters.update(name, enabled=enabled), ADAPTER)
