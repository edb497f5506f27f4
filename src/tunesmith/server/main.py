"""Runs the server: takes the port, says where it is and what to do next, serves until it is told to stop."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address

import uvicorn

from tunesmith.control.services import Services, refuse_twins
from tunesmith.errors import ServerStartError
from tunesmith.server import logs
from tunesmith.server.app import create_app
from tunesmith.settings import Settings, unknown_variables

log = logging.getLogger(__name__)

BACKLOG = 512
GRACE_SECONDS = 5
"""Time that running requests get when the server stops."""


def say(text: str) -> None:
    """To standard output, at once: it may be a file or a pipe."""
    sys.stdout.write(text)
    sys.stdout.flush()


def serve(settings: Settings, announce: Callable[[str], object] = say) -> None:
    """Serve until SIGINT or SIGTERM. ServerStartError when the port or the data directory is taken."""
    os.umask(0o077)  # what is written from here on, by this process and by engines, is this user's alone
    logs.set_up(settings)
    for sentence in unknown_variables():
        log.warning(sentence)
    refuse_twins(settings)
    listening = _listen(settings)
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )

    def started() -> None:
        gc.freeze()  # what stands now stays: garbage is looked for from here on, and never among it
        gc.enable()
        announce(_welcome(settings, listening))

    server = Server(config, started)
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()
    if not server.started:
        raise ServerStartError("the server could not start; the reason stands above")


class Server(uvicorn.Server):
    """A uvicorn server over `create_app` that speaks up once it answers, and lets watchers go when it is to stop."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], object] = lambda: None) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce."""
        await super().startup(sockets=sockets)
        if self.started:
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams of events, which have no end of their own, then wait for requests as ever."""
        services: Services = self.config.app.state.services  # type: ignore[union-attr]
        services.live.close()
        await super().shutdown(sockets=sockets)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise ServerStartError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another --port or --host"
        ) from None
    listening.listen(BACKLOG)
    listening.set_inheritable(False)
    return listening


def _welcome(settings: Settings, listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    lines = [
        f"Tunesmith listens on {where}",
        f"  data      {settings.data_dir}",
        f"  API       {where}/docs",
        "  next      tunesmith jobs submit job.yaml --watch     (README.md has a whole example)",
    ]
    if not ip_address(host).is_loopback:
        lines.append(
            "  WARNING   anybody who reaches this address can use it: there is no authentication yet. "
            "Listen on 127.0.0.1 unless the network is yours alone."
        )
    return "\n".join(lines) + "\n"
