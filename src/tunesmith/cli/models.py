"""`tunesmith models` and `tunesmith adapters`."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.api.models import Adapter, Model
from tunesmith.cli import render
from tunesmith.cli.session import Session, session

app = typer.Typer(help="Models.", no_args_is_help=True)
adapters = typer.Typer(help="Adapters: trained weights beside a model's own.", no_args_is_help=True)

LINE: render.Columns[Model] = {
    "NAME": lambda model: model.name,
    "FAMILY": lambda model: model.spec.family if model.spec else None,
    "PARAMETERS": lambda model: model.spec.base_num_parameters if model.spec else None,
    "ADAPTERS": lambda model: ", ".join(adapter.name for adapter in model.adapters),
    "CREATED": lambda model: model.created_at,
}
MODEL: render.Columns[Model] = {
    "model": lambda model: f"{model.workspace}/{model.name}",
    "description": lambda model: model.description,
    "fileset": lambda model: model.fileset,
    "base": lambda model: model.base_model,
    "family": lambda model: model.spec and model.spec.family,
    "parameters": lambda model: model.spec and model.spec.base_num_parameters,
    "precision": lambda model: model.spec and model.spec.precision,
    "context": lambda model: model.spec and model.spec.context_size,
    "chat template": lambda model: model.spec and bool(model.spec.is_chat),
    "adapters": lambda model: "\n".join(f"{it.name} {'' if it.enabled else '(disabled)'}" for it in model.adapters),
    "served by": lambda model: ", ".join(model.model_providers),
    "created": lambda model: model.created_at,
}
ADAPTER: render.Columns[Adapter] = {
    "NAME": lambda adapter: adapter.name,
    "MODEL": lambda adapter: adapter.model,
    "RANK": lambda adapter: adapter.lora_config and adapter.lora_config.rank,
    "ENABLED": lambda adapter: adapter.enabled,
    "CREATED": lambda adapter: adapter.created_at,
}


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    fileset: Annotated[str, typer.Option(help="Fileset with the checkpoint, name or workspace/name.")],
    description: Annotated[str | None, typer.Option(help="Free text.")] = None,
) -> None:
    """Make a model of a checkpoint."""
    shell = session(ctx)
    render.one(shell, shell.client.models.create(name, fileset=fileset, description=description), MODEL)


@app.command("list")
def list_models(ctx: typer.Context) -> None:
    """Models."""
    shell = session(ctx)
    render.many(shell, shell.client.models.list(), LINE, "no models yet; `tunesmith models create` makes one")


@app.command()
def show(ctx: typer.Context, name: str) -> None:
    """A model, what its checkpoint says about itself, and its adapters."""
    shell = session(ctx)
    render.one(shell, shell.client.models.retrieve(name), MODEL)


@adapters.command("list")
def list_adapters(ctx: typer.Context) -> None:
    """Adapters of all models."""
    shell = session(ctx)
    render.many(shell, shell.client.adapters.list(), ADAPTER, "no adapters yet; a completed LoRA job makes one")


@adapters.command()
def enable(ctx: typer.Context, name: str) -> None:
    """Serve an adapter beside its base."""
    _switch(session(ctx), name, enabled=True)


@adapters.command()
def disable(ctx: typer.Context, name: str) -> None:
    """Stop serving an adapter, and keep it."""
    _switch(session(ctx), name, enabled=False)


def _switch(shell: Session, name: str, *, enabled: bool) -> None:
    render.one(shell, shell.client.adapters.update(name, enabled=enabled), ADAPTER)
