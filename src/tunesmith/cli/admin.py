"""Commands that are the platform rather than ask it. The platform's rooms are imported inside of the commands only."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.errors import ServerStartError

NEEDED = ("fastapi", "sqlalchemy", "uvicorn", "psutil", "numpy", "tokenizers", "jinja2")
"""What the extra `server` brings."""


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on (default: 8080).")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where everything is kept (default: ~/.tunesmith).", file_okay=False)
    ] = None,
) -> None:
    """Start the platform on this machine. Ctrl-C stops it.

    What is not given is taken from TUNESMITH_HOST, TUNESMITH_PORT and TUNESMITH_DATA_DIR.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ServerStartError(
            f"the platform needs {', '.join(missing)}: install it with `pip install 'tunesmith[all]'` "
            "(this is the client alone)"
        )
    from tunesmith.server.main import serve
    from tunesmith.settings import Settings

    given: dict[str, Any] = {"host": host, "port": port, "data_dir": data_dir and data_dir.expanduser()}
    serve(replace(Settings.from_environment(), **{key: value for key, value in given.items() if value is not None}))
