"""`tunesmith doctor`: what is fine here, what is not, and what to do about it. It writes nothing."""

from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import closing
from dataclasses import asdict, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from tunesmith import __version__
from tunesmith.cli import machine, render
from tunesmith.cli.machine import Check
from tunesmith.cli.session import FAILED, Session, session
from tunesmith.errors import TunesmithError
from tunesmith.settings import Settings

if TYPE_CHECKING:
    import httpx

SILENCE_SECONDS = 5.0
SQLITE = b"SQLite format 3\x00"


def doctor(
    ctx: typer.Context,
    data_dir: Annotated[Path | None, typer.Option(help="Data directory (default: $TUNESMITH_DATA_DIR).")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port (default: $TUNESMITH_PORT).")] = None,
) -> None:
    """Say what is fine on this machine, what is not, and what to do. Exit code 1 when something is bad."""
    shell = session(ctx)
    checks = [machine.version(), machine.python(), *machine.extras(os.environ), *machine.accelerator()]
    checks += [machine.memory(), machine.open_files()]
    try:
        settings = Settings.from_environment()
    except TunesmithError as error:
        checks.append(Check("settings", "bad", error.message, "change or unset that variable"))
    else:
        settings = replace(settings, data_dir=(data_dir or settings.data_dir).expanduser(), port=port or settings.port)
        checks += machine.directory(settings.data_dir)
        checks += [key(settings), database(settings), server(shell, settings, given=port is not None)]
    show(shell, checks)
    if any(check.state == "bad" for check in checks):
        raise typer.Exit(FAILED)


def key(settings: Settings) -> Check:
    """The key that secrets are encrypted with."""
    if settings.secret_key:
        return Check("secret key", "ok", "in TUNESMITH_SECRET_KEY")
    path = settings.data_dir / "secret.key"
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        return Check("secret key", "ok", "none yet; the platform makes one")
    except OSError as error:
        return Check("secret key", "bad", f"{path}: {error.strerror}", "make it readable for you alone")
    if mode & 0o077:
        return Check("secret key", "bad", f"{path} has mode {mode:o}: others can read it", f"chmod 600 {path}")
    return Check("secret key", "ok", str(path))


def database(settings: Settings) -> Check:
    """Whether the database can be reached, and read."""
    if settings.database_url:
        return _postgres(settings.database_url)
    path = settings.data_dir / "tunesmith.db"
    if not path.exists():
        return Check("database", "ok", "none yet; `tunesmith up` makes one")
    todo = "restore a backup: tunesmith restore FILE.tar --data-dir NEW"
    try:
        with path.open("rb") as file:
            if file.read(len(SQLITE)) not in (SQLITE, b""):
                return Check("database", "bad", f"{path} is not a SQLite database", todo)
        return Check("database", "ok", f"SQLite, version {_schema_version(path)} of our tables, {path}")
    except (OSError, sqlite3.Error) as error:
        return Check("database", "bad", f"{path}: {error}", todo)


def server(shell: Session, settings: Settings, given: bool = False) -> Check:
    """Whether the platform listens where we look for it, in our version; else whether it could."""
    from tunesmith.client.sync.client import Tunesmith

    address = shell.base_url
    if address is None and (given or not _address_in_environment()):
        address = f"http://{'127.0.0.1' if settings.host in ('0.0.0.0', '::') else settings.host}:{settings.port}"  # noqa: S104
    transport: httpx.BaseTransport | None = shell.transport
    with Tunesmith(address, timeout=SILENCE_SECONDS, max_retries=0, transport=transport) as client:
        try:
            status = client.status()
        except TunesmithError as error:
            return _not_ours(shell, settings, client.base_url, error)
        theirs = status.get("version")
        found = f"{client.base_url} is {status.get('status', 'there')}, version {theirs or 'unknown'}"
        if status.get("status") not in ("healthy", None):
            return Check("server", "warn", found, "`failures` in its /status says what does not go well")
        if theirs != __version__:
            return Check(
                "server", "warn", found, f"this client is {__version__}: install the same version on both sides"
            )
        return Check("server", "ok", found)


def show(shell: Session, checks: list[Check]) -> None:
    """A line per check, or a JSON array."""
    if shell.json:
        render.print_json([asdict(check) for check in checks])
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        todo = f"\n-> {check.todo}" if check.todo and check.state != "ok" else ""
        table.add_row(render.cell(check.state), check.name, check.found + todo)
    Console(highlight=False, markup=False).print(table)


def _not_ours(shell: Session, settings: Settings, address: str, error: TunesmithError) -> Check:
    """Nobody there, or somebody else."""
    from tunesmith.client.errors import APIConnectionError, APITimeoutError

    local = shell.base_url is None and not _address_in_environment()
    if not isinstance(error, APIConnectionError) or isinstance(error, APITimeoutError):
        todo = "stop it, or take another port: tunesmith up --port 8090, and TUNESMITH_BASE_URL for the client"
        return Check("server", "bad", f"{address} is taken by something that is no Tunesmith: {error.message}", todo)
    if not local:
        return Check("server", "bad", f"nobody answers at {address}", "start it there, or name another --base-url")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as refused:
            todo = "choose another --port or --host for `tunesmith up`"
            return Check(
                "server", "bad", f"cannot listen on {settings.host}:{settings.port} ({refused.strerror})", todo
            )
    return Check("server", "ok", f"not running, and {settings.host}:{settings.port} is free: `tunesmith up` starts it")


def _address_in_environment() -> bool:
    return bool(os.environ.get("TUNESMITH_BASE_URL") or os.environ.get("NMP_BASE_URL"))


def _schema_version(path: Path) -> str:
    """Read without a trace: beside a server through its own log, else as a file that does not change."""
    beside = path.with_name(path.name + "-wal").exists()
    if beside and not path.with_name(path.name + "-shm").exists():
        return "unknown (the last server was killed)"
    uri = f"{path.absolute().as_uri()}?mode=ro{'' if beside else '&immutable=1'}"
    with closing(sqlite3.connect(uri, uri=True, timeout=SILENCE_SECONDS)) as connection:
        row = connection.execute("select max(version) from schema_version").fetchone()
    return str(row[0]) if row else "unknown"


def _postgres(url: str) -> Check:
    if find_spec("psycopg") is None:
        todo = "pip install 'tunesmith[postgres]'"
        return Check("database", "bad", "TUNESMITH_DATABASE_URL is set, and psycopg is not installed", todo)
    psycopg = import_module("psycopg")
    try:
        with psycopg.connect(
            url.replace("postgresql+psycopg:", "postgresql:", 1), connect_timeout=int(SILENCE_SECONDS)
        ) as connection:
            (found,) = connection.execute("show server_version").fetchone()
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        return Check("database", "bad", f"PostgreSQL cannot be reached: {reason}", "check TUNESMITH_DATABASE_URL")
    return Check("database", "ok", f"PostgreSQL {found}")
