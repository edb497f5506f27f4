"""Commands that are the platform rather than ask it. The platform's rooms are imported inside of the commands only."""

from __future__ import annotations

import gc as garbage
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli import render
from tunesmith.cli.session import session
from tunesmith.errors import BadRequest, ServerStartError

if TYPE_CHECKING:
    from tunesmith.settings import Settings

DataDirOption = Annotated[
    Path | None,
    typer.Option(help="The data directory (default: $TUNESMITH_DATA_DIR, else ~/.tunesmith).", file_okay=False),
]

NEEDED = (
    "fastapi",
    "sqlalchemy",
    "uvicorn",
    "psutil",
    "cryptography",
    "huggingface_hub",
    "numpy",
    "tokenizers",
    "jinja2",
)
"""What the extra `server` brings."""


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on (default: 8080).")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where everything is kept (default: ~/.tunesmith).", file_okay=False)
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            help="A PostgreSQL database, as in postgresql://user@host/name (default: SQLite in the data directory). "
            "Everybody on the machine can read a command line: a password belongs into TUNESMITH_DATABASE_URL."
        ),
    ] = None,
    leave_running: Annotated[
        bool | None,
        typer.Option("--leave-running", help="When it stops, let jobs go on; else they leave a checkpoint and wait."),
    ] = None,
) -> None:
    """Start the platform on this machine. Ctrl-C stops it; jobs that train leave a checkpoint, and the next start goes
    on with them.

    What is not given is taken from TUNESMITH_HOST, TUNESMITH_PORT, TUNESMITH_DATA_DIR, TUNESMITH_DATABASE_URL and
    TUNESMITH_LEAVE_RUNNING.
    """
    _refuse_client_alone()
    from tunesmith.settings import Settings

    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "data_dir": data_dir and data_dir.expanduser(),
        "database_url": database_url,
        "leave_running": leave_running,
    }
    settings = replace(Settings.from_environment(), **{key: value for key, value in given.items() if value is not None})
    garbage.disable()  # until the server answers: there is none yet, and to look for it takes an eighth of the start
    try:
        from tunesmith.server.main import serve

        serve(settings)
    finally:
        garbage.enable()


def backup(
    file: Annotated[Path, typer.Argument(help="The tar file to write; it must not exist.")],
    data_dir: DataDirOption = None,
) -> None:
    """Write database, files and the key of the secrets to one file. Works while the platform runs.

    Whoever has the file has the secrets: keep it as you keep them. Runs (logs, checkpoints) are not in it.
    """
    settings = _settings(data_dir)
    from tunesmith.control.backup import backup as make

    if settings.database_url:
        raise BadRequest(
            "the database is a PostgreSQL server, whose backups are pg_dump's: run pg_dump first, then copy blobs/ and "
            f"secret.key of {settings.data_dir} (blobs never change, so rsync will do), with no `tunesmith gc` between"
        )
    if not file.absolute().parent.is_dir():
        raise BadRequest(f"there is no directory {file.absolute().parent} to write {file.name} into; make it first")
    made = make(settings.data_dir, file)
    typer.echo(f"{file}: the database and {_contents(made.blobs)}, {render.size(made.bytes)} in all")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `tunesmith backup` wrote.", exists=True, dir_okay=False)],
    data_dir: Annotated[Path, typer.Option(help="The directory to make; it must not exist or be empty.")],
) -> None:
    """Make a data directory from a backup. Every file's digest is checked."""
    _refuse_client_alone()
    from tunesmith.control.backup import restore as take_back

    before = os.umask(0o077)  # as the server does: what is written is this user's alone
    try:
        made = take_back(file, data_dir.expanduser().absolute())
    finally:
        os.umask(before)
    typer.echo(f"{data_dir}: the database and {_contents(made.blobs)}; serve it: tunesmith up --data-dir {data_dir}")


def gc(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    data_dir: DataDirOption = None,
) -> None:
    """Delete what nothing needs any more: unreferenced files, checkpoints of old runs, unread copies of remote files.

    A platform that runs is asked to; where none runs on the data directory, it is done here.
    """
    shell = session(ctx)
    alone = None
    if shell.base_url is None and find_spec("sqlalchemy"):  # else this is the client alone
        from tunesmith.control.garbage import collect_alone

        settings = _settings(data_dir)
        if data_dir and not settings.database_url and not (settings.data_dir / "tunesmith.db").exists():
            raise BadRequest(f"{data_dir} holds no tunesmith.db, so it is no data directory; name the right --data-dir")
        alone = collect_alone(settings, dry_run=dry_run)
    found = (shell.client.gc(dry_run=dry_run) if alone is None else alone).model_dump(mode="json")
    if shell.json:
        render.print_json(found)
    else:
        _show_collected(found)


def _contents(count: int) -> str:
    """Blobs, for people."""
    return "the contents of 1 file" if count == 1 else f"the contents of {count:,} files"


def _show_collected(found: dict[str, Any]) -> None:
    counts = (
        ("contents of files", found["blobs"], found["blob_bytes"]),
        ("runs of ended jobs", found["runs"], found["run_bytes"]),
        ("leftover directories", found["leftovers"], found["leftover_bytes"]),
    )
    lines = [f"  {count:>8,} {noun}: {render.size(size)}" for noun, count, size in counts if count]
    if found["cached_files"]:
        lines.append(f"  {found['cached_files']:>8,} copies of remote files, which come again when they are read")
    if not lines:
        typer.echo("nothing to free: everything here is needed")
        return
    typer.echo("\n".join(["Would free:" if found["dry_run"] else "Freed:", *lines]))
    typer.echo(f"  {render.size(found['bytes'])} in all")


def _settings(data_dir: Path | None) -> Settings:
    _refuse_client_alone()
    from tunesmith.settings import Settings

    settings = Settings.from_environment()
    return replace(settings, data_dir=data_dir.expanduser()) if data_dir else settings


def _refuse_client_alone() -> None:
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ServerStartError(
            f"the platform needs {', '.join(missing)}: install it with `pip install 'tunesmith[all]'` "
            "(this is the client alone)"
        )
