"""`python -m tunesmith.serve DIR`: serves the base model in DIR/inputs/model until SIGTERM, as deployment.json says.

Adapters come over HTTP. Where it listens stands in DIR/serving.json once it does. Exit code 0 after SIGTERM or SIGINT,
1 if the model cannot be served.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import TunesmithError
from tunesmith.handoff.deployment import DEPLOYMENT_FILE, SERVING_FILE, TOKEN_VARIABLE, Deployment, Serving
from tunesmith.handoff.inputs import MODEL

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tunesmith.generate.engine import Engine

log = logging.getLogger("tunesmith.serve")

GRACE_SECONDS = 5
"""How long running requests may go on after SIGTERM."""


def main() -> int:
    """The process, start to end; its exit code."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m tunesmith.serve", description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, metavar="DIR", help="holds deployment.json and inputs/model")
    directory: Path = parser.parse_args().directory
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, _exit_cleanly)
    try:
        engine, app = prepare(directory)
    except TunesmithError as error:
        log.error("cannot serve: %s", error)
        return 1
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    try:
        serve(app, listener, directory, began)
    finally:
        engine.close()
    return 0


def prepare(directory: Path) -> tuple[Engine, FastAPI]:
    """Load everything that an answer needs; TunesmithError says what is missing."""
    deployment = Deployment.read(directory / DEPLOYMENT_FILE)
    # Threads that wait for work sleep instead of spinning: half the CPU time at two threads, and no slower while other
    # work runs. Read by OpenMP when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Imports that take seconds stand behind the cheap checks.
    from tunesmith.data.template import ChatTemplate
    from tunesmith.data.tokens import Tokenizer
    from tunesmith.generate.engine import Engine
    from tunesmith.model.load import load_model, pick_device, resolve_compute
    from tunesmith.serve import app
    from tunesmith.serve.adapters import Adapters

    model_dir = directory / MODEL
    tokenizer = Tokenizer.load(model_dir)
    template = ChatTemplate(deployment.chat_template, tokenizer.special_tokens) if deployment.chat_template else None
    device = pick_device()
    compute = resolve_compute(deployment.compute, device)
    engine = Engine(load_model(model_dir, compute, "sdpa", device), tokenizer, deployment.max_batch)
    log.info("%s on %s in %s, context %d tokens", deployment.served_model, device, compute, engine.context)
    adapters = Adapters(engine, deployment.served_model)
    serving = app.Serving(engine, adapters, tokenizer, template, deployment.served_model, int(time.time()))
    return engine, app.make_app(serving, os.environ.get(TOKEN_VARIABLE, ""))


def serve(app: FastAPI, listener: socket.socket, directory: Path, began: float) -> None:
    """Answer until a signal comes; `listener` is listening already, so serving.json is true when it is written."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=GRACE_SECONDS
    )
    host, port = listener.getsockname()[:2]
    Serving(host=host, port=port, pid=os.getpid()).write(directory / SERVING_FILE)
    log.info("listening on %s:%d after %.1f s", host, port, time.monotonic() - began)
    uvicorn.Server(config).run(sockets=[listener])


def _exit_cleanly(*_: object) -> None:
    """Before serving: leave at once. After it: uvicorn raises the signal again once its requests have ended."""
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
