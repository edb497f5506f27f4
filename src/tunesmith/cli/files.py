"""`tunesmith files`: bring files in, see what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from tunesmith.api.filesets import Fileset, FilesetFile, Purpose
from tunesmith.cli import render
from tunesmith.cli.session import session

app = typer.Typer(help="Filesets and their files.", no_args_is_help=True)

FILESETS: render.Columns[Fileset] = {
    "NAME": lambda fileset: fileset.name,
    "PURPOSE": lambda fileset: fileset.purpose,
    "DESCRIPTION": lambda fileset: fileset.description,
    "CREATED": lambda fileset: fileset.created_at,
}
FILES: render.Columns[FilesetFile] = {
    "PATH": lambda file: file.path,
    "SIZE": lambda file: render.size(file.size),
}
_PURPOSES: dict[str, Purpose] = {"generic": "generic", "dataset": "dataset", "model": "model"}


@app.command()
def upload(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(help="File or directory; `dir/` puts its contents at the top.")],
    fileset: Annotated[str, typer.Argument(help="Fileset, name or workspace/name; made if there is none.")],
    remote_path: Annotated[str, typer.Argument(help="Where in the fileset.")] = "",
    purpose: Annotated[str, typer.Option(help="generic, dataset or model, when the fileset is made.")] = "generic",
) -> None:
    """Put a file or a directory into a fileset."""
    shell = session(ctx)
    if purpose not in _PURPOSES:
        raise typer.BadParameter(f"'{purpose}' must be one of {', '.join(_PURPOSES)}", param_hint="--purpose")
    if not Path(path).exists():
        raise typer.BadParameter(f"there is no '{path}'", param_hint="PATH")
    workspace, _, name = fileset.rpartition("/")
    shell.client.files.filesets.create(name, workspace=workspace or None, purpose=_PURPOSES[purpose], exist_ok=True)
    with Progress(console=Console(stderr=True), transient=True, disable=shell.json) as bar:
        task = bar.add_task("uploading", total=None)
        there = shell.client.files.upload(
            path,
            fileset=fileset,
            remote_path=remote_path,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if shell.json:
        render.print_json(there.model_dump(mode="json"))
        return
    typer.echo(f"{path} is in fileset {there.workspace}/{there.name}")


@app.command("list")
def list_files(
    ctx: typer.Context,
    fileset: Annotated[str | None, typer.Argument(help="Fileset whose files to list; without it, filesets.")] = None,
    remote_path: Annotated[str | None, typer.Argument(help="Only what is below this directory.")] = None,
) -> None:
    """Filesets, or the files of one."""
    shell = session(ctx)
    if fileset is None:
        filesets = shell.client.files.filesets.list()
        render.many(shell, filesets, FILESETS, "no filesets yet; `tunesmith files upload PATH FILESET` makes one")
        return
    render.many(shell, shell.client.files.list(fileset, remote_path).data, FILES, "no files there")
