"""What a serving process is told at its start (`deployment.json`) and what it answers once it listens (`serving.json`).

Adapters are not in here: they come and go over HTTP while it serves. The token that both calls and the health check
demand is handed over in the environment as TUNESMITH_SERVE_TOKEN.
"""

from __future__ import annotations

from typing import Literal

from tunesmith.handoff.base import HandedFile

DEPLOYMENT_FILE = "deployment.json"
SERVING_FILE = "serving.json"
TOKEN_VARIABLE = "TUNESMITH_SERVE_TOKEN"  # noqa: S105 - the variable's name, not a token


class Deployment(HandedFile):
    """Start-up facts of one serving process. The base model lies in `inputs/model`."""

    served_model: str
    """The id under which the base answers: `workspace/name`."""
    compute: Literal["auto", "bf16", "fp32"]
    """As in the Plan's model part."""
    chat_template: str
    """Jinja template for chat completions; "" when there is none, and chat is refused."""
    max_batch: int
    """Requests that are answered together at most."""


class Serving(HandedFile):
    """Where the process listens, written once it does."""

    host: str
    port: int
    pid: int
