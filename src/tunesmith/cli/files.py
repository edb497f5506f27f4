"""`tunesmith files`, and the same commands in `tunesmith filesets`: bring files in and out, see what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tunesmith.cli import lists, render
from tunesmith.cli.session import Session, make_sure, session

if TYPE_CHECKING:
    from tunesmith.api.filesets import Fileset, FilesetFile, Purpose

app = typer.Typer(help="The files in filesets.", no_args_is_help=True)

FILESETS: render.Columns[Fileset] = {
    "NAME": lambda fileset: fileset.name,
    "PURPOSE": lambda fileset: fileset.purpose,
    "STORAGE": lambda fileset: fileset.storage.type,
    "DESCRIPTION": lambda fileset: fileset.description,
    "CREATED": lambda fileset: fileset.created_at,
}
FILES: render.Columns[FilesetFile] = {
    "PATH": lambda file: file.path,
    "SIZE": lambda file: render.size(file.size),
}
_PURPOSES: dict[str, Purpose] = {"generic": "generic", "dataset": "dataset", "model": "model"}

FilesetName = Annotated[str, typer.Argument(help="Fileset, name or workspace/name.")]


@app.command()
def upload(
    ctx: typer.Context,
    path: Annotated[
        str, typer.Argument(help="File or directory; `dir/` puts its contents at the top, `dir` the directory itself.")
    ],
    fileset: Annotated[str, typer.Argument(help="Fileset, name or workspace/name; made if there is none.")],
    remote_path: Annotated[str, typer.Argument(help="Where in the fileset.")] = "",
    purpose: Annotated[str, typer.Option(help="generic, dataset or model, when the fileset is made.")] = "generic",
    project: Annotated[str | None, typer.Option(help="Project, when the fileset is made.")] = None,
) -> None:
    """Put a file or a directory into a fileset."""
    shell = session(ctx)
    wanted = purpose_of(purpose)
    if not Path(path).exists():
        raise typer.BadParameter(f"there is no '{path}'", param_hint="PATH")
    filesets = shell.client.files.filesets
    workspace, _, name = fileset.rpartition("/")
    filesets.create(name, workspace=workspace or None, purpose=wanted, project=project, exist_ok=True)
    with moving(shell, "uploading") as progress:
        there = shell.client.files.upload(path, fileset=fileset, remote_path=remote_path, progress=progress)
    if shell.json:
        render.print_json(there.model_dump(mode="json"))
        return
    typer.echo(f"{path} is in fileset {there.workspace}/{there.name}{_placed(path, remote_path)}")


@app.command()
def download(
    ctx: typer.Context,
    fileset: FilesetName,
    local_path: Annotated[str, typer.Argument(help="Directory or file to write.")] = ".",
    remote_path: Annotated[
        str | None, typer.Argument(help="File or directory of the fileset; `dir/` leaves its own name out.")
    ] = None,
) -> None:
    """Bring a fileset, a directory of it or one file here."""
    shell = session(ctx)
    with moving(shell, "downloading") as progress:
        written = shell.client.files.download(fileset, local_path, remote_path, progress=progress)
    if shell.json:
        render.print_json([str(path) for path in written])
        return
    typer.echo(f"{len(written)} files are in {local_path}" if len(written) != 1 else f"{written[0]} is here")


@app.command("list")
def list_files(
    ctx: typer.Context,
    fileset: Annotated[str | None, typer.Argument(help="Fileset whose files to list; without it, filesets.")] = None,
    remote_path: Annotated[str | None, typer.Argument(help="Only what is below this directory.")] = None,
    cache_status: Annotated[
        bool, typer.Option("--cache-status", help="Whether files of a remote storage are here.")
    ] = False,
) -> None:
    """The files of a fileset."""
    shell = session(ctx)
    if fileset is None:
        show_filesets(shell, lists.Asked())
        return
    found = shell.client.files.list(fileset, remote_path, include_cache_status=cache_status)
    columns: render.Columns[FilesetFile] = {"CACHE": lambda file: file.cache_status} if cache_status else {}
    render.many(shell, found.data, {**FILES, **columns}, "no files there")


@app.command("rm")
def remove(
    ctx: typer.Context,
    fileset: FilesetName,
    remote_path: Annotated[str, typer.Argument(help="File of the fileset.")],
    yes: lists.Yes = False,
) -> None:
    """Take a file out of a fileset."""
    shell = session(ctx)
    make_sure(f"Delete {remote_path} from fileset {fileset}?", yes)
    shell.client.files.delete(fileset, remote_path)
    render.gone(shell, remote_path)


def _placed(path: str, remote_path: str) -> str:
    """Where an upload is in its fileset, if that is not its root under its own name."""
    top = PurePosixPath(remote_path)
    if Path(path).is_dir() and not path.endswith("/"):
        return f", in {top / Path(path).resolve().name}/"
    if remote_path.endswith("/") or Path(path).is_dir():
        return f", in {top}/" if remote_path else ""
    return f", as {top}" if remote_path else ""


def show_filesets(shell: Session, asked: lists.Asked) -> None:
    """The filesets that were asked for."""
    nothing = "no filesets yet; `tunesmith files upload PATH FILESET` makes one"
    lists.show(shell, shell.client.files.filesets.list, FILESETS, nothing, asked)


def purpose_of(text: str | None) -> Purpose | None:
    """The purpose that an option names; BadParameter with those there are."""
    if text is not None and text not in _PURPOSES:
        raise typer.BadParameter(f"'{text}' must be one of {', '.join(_PURPOSES)}", param_hint="--purpose")
    return _PURPOSES[text] if text else None


@contextmanager
def moving(shell: Session, word: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for bytes on their way, on a terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    look = (TextColumn(word), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*look, console=Console(stderr=True), transient=True, disable=shell.json) as bar:
        task = bar.add_task(word, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
