"""`tunesmith filesets`: named collections of files. What is in them is in files.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli import files, lists, render, storage
from tunesmith.cli.session import make_sure, session
from tunesmith.errors import Invalid

if TYPE_CHECKING:
    from tunesmith.api.filesets import Fileset, Storage

app = typer.Typer(help="Filesets: named collections of files.", no_args_is_help=True)
app.command("files")(files.list_files)
app.command("upload")(files.upload)
app.command("download")(files.download)
app.command("rm")(files.remove)

FILESET: render.Columns[Fileset] = {
    "fileset": lambda fileset: f"{fileset.workspace}/{fileset.name}",
    "purpose": lambda fileset: fileset.purpose,
    "description": lambda fileset: fileset.description,
    "project": lambda fileset: fileset.project,
    "storage": lambda fileset: place(fileset.storage),
    "custom fields": lambda fileset: render.pairs(fileset.custom_fields),
    "created": lambda fileset: fileset.created_at,
    "updated": lambda fileset: fileset.updated_at,
}

Purpose = Annotated[str | None, typer.Option(help="generic, dataset or model.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="As in custom_fields.team=mail. Repeatable."),
]
ChatTemplate = Annotated[
    Path | None,
    typer.Option(help="File with a Jinja template that wins over the checkpoint's own.", exists=True, dir_okay=False),
]


@app.command("list")
def list_filesets(
    ctx: typer.Context,
    filter: lists.Filter = None,
    sort: lists.Sort = None,
    limit: lists.Limit = None,
    all_workspaces: lists.AllWorkspaces = False,
    project: lists.OfProject = None,
) -> None:
    """Filesets."""
    files.show_filesets(session(ctx), lists.Asked(filter, sort, limit, all_workspaces, project))


@app.command()
def show(ctx: typer.Context, name: str) -> None:
    """A fileset; `files` lists what is in it."""
    shell = session(ctx)
    render.one(shell, shell.client.files.filesets.retrieve(name), FILESET)


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    hf: Annotated[
        str | None, typer.Option("--hf", metavar="REPO[@REVISION]", help="Files of a Hugging Face repository.")
    ] = None,
    s3: Annotated[str | None, typer.Option("--s3", metavar="s3://BUCKET/PREFIX", help="Files of an S3 bucket.")] = None,
    ngc: Annotated[
        str | None, typer.Option("--ngc", metavar="ORG/TEAM/TARGET:VERSION", help="Files of the NGC catalogue.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="With --hf: model, dataset or space. With --ngc: resource or model.")
    ] = None,
    token_secret: Annotated[
        str | None, typer.Option(help="With --hf and --ngc: secret that holds the access token.")
    ] = None,
    access_key_id_secret: Annotated[str | None, typer.Option(help="With --s3: secret that holds the key's id.")] = None,
    secret_access_key_secret: Annotated[str | None, typer.Option(help="With --s3: secret that holds the key.")] = None,
    endpoint_url: Annotated[str | None, typer.Option(help="With --s3: another S3 than Amazon's.")] = None,
    cache: Annotated[bool, typer.Option("--cache", help="Fetch remote files at once, not when first read.")] = False,
    purpose: Purpose = None,
    description: lists.Description = None,
    project: lists.Project = None,
    assignments: Assignments = None,
    chat_template: ChatTemplate = None,
    exist_ok: lists.ExistOk = False,
) -> None:
    """Make a fileset: empty, or with the files of a remote storage."""
    if sum(place is not None for place in (hf, s3, ngc)) > 1:
        raise Invalid("--hf, --s3 and --ngc exclude each other: a fileset has one storage")
    where: dict[str, Any] | None = None
    if hf is not None:
        where = storage.hugging_face(hf, token_secret, kind)
    elif s3 is not None:
        where = storage.s3(s3, access_key_id_secret, secret_access_key_secret, endpoint_url)
    elif ngc is not None:
        where = storage.ngc(ngc, token_secret, kind)
    shell = session(ctx)
    made = shell.client.files.filesets.create(
        name,
        purpose=files.purpose_of(purpose),
        description=description,
        project=project,
        storage=where,
        cache=cache or None,
        exist_ok=exist_ok,
        **_changes(assignments, chat_template, None),
    )
    render.one(shell, made, FILESET)


@app.command()
def update(
    ctx: typer.Context,
    name: str,
    purpose: Purpose = None,
    description: lists.Description = None,
    project: lists.Project = None,
    assignments: Assignments = None,
    chat_template: ChatTemplate = None,
) -> None:
    """Change a fileset; what is not given stays."""
    shell = session(ctx)
    filesets = shell.client.files.filesets
    there = filesets.retrieve(name) if assignments or chat_template else None
    changed = filesets.update(
        name,
        purpose=files.purpose_of(purpose),
        description=description,
        project=project,
        **_changes(assignments, chat_template, there),
    )
    render.one(shell, changed, FILESET)


@app.command()
def delete(ctx: typer.Context, name: str, yes: lists.Yes = False) -> None:
    """Remove a fileset with its files."""
    shell = session(ctx)
    make_sure(f"Delete fileset {name} with its files?", yes)
    shell.client.files.filesets.delete(name)
    render.gone(shell, name)


def place(storage: Storage) -> str:
    """Where a fileset's files are, in a word."""
    if storage.type == "huggingface":
        return f"hf {storage.repo_id}@{storage.original_revision or storage.revision}"
    if storage.type == "s3":
        return f"s3://{storage.bucket}/{storage.prefix}"
    if storage.type == "ngc":
        return f"ngc {storage.org}/{storage.team}/{storage.target}:{storage.version}"
    return "this platform"


def _changes(assignments: list[str] | None, chat_template: Path | None, there: Fileset | None) -> dict[str, Any]:
    """`custom_fields` and `metadata` as they shall be, where they are to change; what is `there` already stays."""
    changes = list(assignments or ())
    below: dict[str, dict[str, Any] | None] = {"custom_fields": {}, "metadata": {}}
    if there is not None:
        metadata = there.metadata.model_dump(mode="json", by_alias=True, exclude_none=True)
        below = {"custom_fields": there.custom_fields, "metadata": metadata}
    changed = lists.assigned(changes, below)
    if chat_template is not None:
        metadata = changed.setdefault("metadata", dict(below["metadata"] or {}))
        model = metadata.setdefault("model", {})
        model.setdefault("tool_calling", {})["chat_template"] = chat_template.read_text(encoding="utf-8")
    return changed
