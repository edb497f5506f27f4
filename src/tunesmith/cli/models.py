"""`tunesmith models`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tunesmith.cli import lists, render
from tunesmith.cli.session import Session, make_sure, session

if TYPE_CHECKING:
    from tunesmith.api.models import Adapter, Model

app = typer.Typer(help="Models: checkpoints, what is known about them, and their adapters.", no_args_is_help=True)

LINE: render.Columns[Model] = {
    "NAME": lambda model: model.name,
    "FAMILY": lambda model: model.spec.family if model.spec else model.custom_fields.get("spec_status"),
    "PARAMETERS": lambda model: model.spec.base_num_parameters if model.spec else None,
    "ADAPTERS": lambda model: ", ".join(of_model(adapter) for adapter in model.adapters),
    "CREATED": lambda model: model.created_at,
}
MODEL: render.Columns[Model] = {
    "model": lambda model: f"{model.workspace}/{model.name}",
    "description": lambda model: model.description,
    "project": lambda model: model.project,
    "fileset": lambda model: model.fileset,
    "base": lambda model: model.base_model,
    "checkpoint": lambda model: None if model.spec else model.custom_fields.get("spec_status"),
    "problem": lambda model: model.custom_fields.get("spec_error"),
    "family": lambda model: model.spec and model.spec.family,
    "parameters": lambda model: model.spec and model.spec.base_num_parameters,
    "precision": lambda model: model.spec and model.spec.precision,
    "context": lambda model: model.spec and model.spec.context_size,
    "chat template": lambda model: model.spec and bool(model.spec.is_chat),
    "GPUs for LoRA": lambda model: model.spec and model.spec.minimum_gpus_lora,
    "GPUs for all weights": lambda model: model.spec and model.spec.minimum_gpus_all_weights,
    "adapters": lambda model: "\n".join(of_model(adapter) for adapter in model.adapters),
    "served by": lambda model: ", ".join(model.model_providers),
    "custom fields": lambda model: render.pairs(own_fields(model)),
    "linear layers": lambda model: layers(model),
    "created": lambda model: model.created_at,
}

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the checkpoint has been read.")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds to wait at most.")]
Fileset = Annotated[str | None, typer.Option(help="Fileset with the checkpoint, name or workspace/name.")]
Base = Annotated[str | None, typer.Option(help="Model that this one was made of.")]
RemoteCode = Annotated[
    bool | None,
    typer.Option("--trust-remote-code/--no-trust-remote-code", help="Let the checkpoint's own code run."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="As in custom_fields.team=mail. Repeatable."),
]

WAIT_SECONDS = 600.0


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    fileset: Annotated[str, typer.Option(help="Fileset with the checkpoint, name or workspace/name.")],
    base_model: Base = None,
    description: lists.Description = None,
    project: lists.Project = None,
    trust_remote_code: RemoteCode = None,
    assignments: Assignments = None,
    wait: Wait = True,
    timeout: Timeout = WAIT_SECONDS,
    exist_ok: lists.ExistOk = False,
) -> None:
    """Make a model of a checkpoint, and say what the checkpoint is; exit code 1 if it cannot be read."""
    shell = session(ctx)
    model = shell.client.models.create(
        name,
        fileset=fileset,
        base_model=base_model,
        description=description,
        project=project,
        trust_remote_code=trust_remote_code,
        exist_ok=exist_ok,
        **lists.assigned(assignments or (), {"custom_fields": {}}),
    )
    _shown(shell, model, wait, timeout)


@app.command("list")
def list_models(
    ctx: typer.Context,
    filter: lists.Filter = None,
    sort: lists.Sort = None,
    limit: lists.Limit = None,
    all_workspaces: lists.AllWorkspaces = False,
    project: lists.OfProject = None,
) -> None:
    """Models."""
    shell = session(ctx)
    asked = lists.Asked(filter, sort, limit, all_workspaces, project)
    nothing = "no models yet; `tunesmith models create NAME --fileset FILESET` makes one"
    lists.show(shell, shell.client.models.list, LINE, nothing, asked)


@app.command()
def show(
    ctx: typer.Context,
    name: str,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="With its linear layers.")] = False,
) -> None:
    """A model, what its checkpoint says about itself, and its adapters."""
    shell = session(ctx)
    render.one(shell, shell.client.models.retrieve(name, verbose=verbose), MODEL)


@app.command()
def update(
    ctx: typer.Context,
    name: str,
    fileset: Fileset = None,
    base_model: Base = None,
    description: lists.Description = None,
    project: lists.Project = None,
    trust_remote_code: RemoteCode = None,
    assignments: Assignments = None,
    wait: Wait = True,
    timeout: Timeout = WAIT_SECONDS,
) -> None:
    """Change a model; what is not given stays. Another fileset is read anew."""
    shell = session(ctx)
    models = shell.client.models
    there = own_fields(models.retrieve(name)) if assignments else {}
    changes: dict[str, Any] = lists.assigned(assignments or (), {"custom_fields": there})
    changed = models.update(
        name,
        fileset=fileset,
        base_model=base_model,
        description=description,
        project=project,
        trust_remote_code=trust_remote_code,
        **changes,
    )
    _shown(shell, changed, wait and fileset is not None, timeout)


@app.command()
def delete(ctx: typer.Context, name: str, yes: lists.Yes = False) -> None:
    """Remove a model with its adapters; the files stay in their filesets."""
    shell = session(ctx)
    make_sure(f"Delete model {name} with its adapters?", yes)
    shell.client.models.delete(name)
    render.gone(shell, name)


def own_fields(model: Model) -> dict[str, Any]:
    """The custom fields that a user gave, without what the platform says about reading the checkpoint."""
    return {key: value for key, value in model.custom_fields.items() if key not in ("spec_status", "spec_error")}


def of_model(adapter: Adapter) -> str:
    """An adapter beside its model."""
    return adapter.name if adapter.enabled else f"{adapter.name} (disabled)"


def layers(model: Model) -> str | None:
    """The linear layers, a kind a line: how many, of which shape."""
    if not model.spec or not model.spec.linear_layers:
        return None
    counts: dict[str, int] = {}
    for layer in model.spec.linear_layers:
        kind = f"{layer.name.rpartition('.')[2]} {layer.in_features} -> {layer.out_features}"
        counts[kind] = counts.get(kind, 0) + 1
    return "\n".join(f"{count} x {kind}" for kind, count in counts.items())


def _shown(shell: Session, model: Model, wait: bool, timeout: float) -> None:
    """The model, once its checkpoint has been read if that is waited for."""
    if wait:
        busy = nullcontext() if shell.json else Console(stderr=True).status(f"reading the checkpoint of {model.name}")
        with busy:
            model = shell.client.models.wait(f"{model.workspace}/{model.name}", timeout=timeout)
    render.one(shell, model, MODEL)
