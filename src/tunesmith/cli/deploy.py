"""`tunesmith deploy` and `tunesmith deployments`: serve a model with its adapters, and stop serving it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tunesmith.cli import lists, render
from tunesmith.cli.session import make_sure, session
from tunesmith.errors import Conflict
from tunesmith.refs import Ref

if TYPE_CHECKING:
    from tunesmith.api.deployments import DeploymentConfig, ModelDeployment
    from tunesmith.client.sync.client import Tunesmith

app = typer.Typer(help="Serving processes.", no_args_is_help=True)

COLUMNS: render.Columns[ModelDeployment] = {
    "deployment": lambda deployment: deployment.name,
    "status": lambda deployment: deployment.status,
    "message": lambda deployment: deployment.status_message,
    "config": lambda deployment: deployment.config,
    "created": lambda deployment: deployment.created_at,
}


def deploy(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Model to serve, name or workspace/name.")],
    name: Annotated[str | None, typer.Option(help="Name of the deployment; the model's name if not given.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it answers.")] = True,
) -> None:
    """Serve a model and its enabled adapters."""
    shell = session(ctx)
    client = shell.client
    found = client.models.retrieve(model)
    name = name or found.name
    config = config_for(client, name, Ref(found.workspace, found.name))
    deployment = client.inference.deployments.create(name, config=config.name)
    if wait:
        busy = nullcontext() if shell.json else Console(stderr=True).status(f"starting {name}")
        with busy:
            deployment = client.inference.deployments.wait(name) or deployment
    if shell.json:
        render.print_json(deployment.model_dump(mode="json"))
        return
    typer.echo(f"{name} is {deployment.status}")
    ref = f"{found.workspace}/{found.name}"
    typer.echo(f'chat with it: tunesmith chat {ref} "Hello"')
    for adapter in found.adapters:
        if adapter.enabled:
            typer.echo(f'with its adapter: tunesmith chat {adapter.workspace}/{adapter.name} "Hello"')


def config_for(client: Tunesmith, name: str, model: Ref) -> DeploymentConfig:
    """A config called `name` that serves `model` with its adapters: a new one, or the one that is there already."""
    configs = client.inference.deployment_configs
    try:
        return configs.create(
            name,
            model_spec={"model_namespace": model.workspace, "model_name": model.name, "lora_enabled": True},
            executor_config={"gpu": 1},
        )
    except Conflict:
        there = configs.retrieve(name)
    if there.model_entity_id != str(model) or not there.model_spec.lora_enabled:
        raise Conflict(
            f"there is a deployment config '{name}' that serves something else ({there.model_entity_id}); "
            "give this deployment another name with --name"
        )
    return there


@app.command()
def show(ctx: typer.Context, name: str) -> None:
    """How a deployment is doing."""
    shell = session(ctx)
    render.one(shell, shell.client.inference.deployments.retrieve(name), COLUMNS)


@app.command()
def delete(
    ctx: typer.Context,
    name: str,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until its process is gone.")] = True,
    yes: lists.Yes = False,
) -> None:
    """Stop serving."""
    shell = session(ctx)
    make_sure(f"Stop serving {name}?", yes)
    client = shell.client
    client.inference.deployments.delete(name)
    if wait:
        client.inference.deployments.wait(name, until="DELETED")
    if shell.json:
        render.print_json({"name": name, "status": "DELETED" if wait else "DELETING"})
        return
    typer.echo(f"{name} is {'deleted' if wait else 'being deleted'}")
