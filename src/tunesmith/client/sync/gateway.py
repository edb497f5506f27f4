# Made by scripts/unasync.py from ../aio/gateway.py: change that file and run the script again.
"""The inference gateway, raw: bodies go through as they are, answers come back as dicts."""

from __future__ import annotations

from typing import Any

from tunesmith.api import paths
from tunesmith.api.base import JsonObject
from tunesmith.client import wire
from tunesmith.client.options import ANSWER_SECONDS
from tunesmith.client.sync.resource import Resource
from tunesmith.client.sync.transport import Transport


class OpenaiRoute(Resource):
    """`client.inference.gateway.openai`: the body's `model`, a model or an adapter, says who answers."""

    def post(self, uri: str, *, body: JsonObject, workspace: str | None = None) -> Any:
        """POST, as in `post("v1/chat/completions", body={"model": "default/triage", "messages": [...]})`."""
        path = paths.at(paths.GATEWAY_OPENAI, workspace=workspace or self._workspace, uri=uri.lstrip("/"))
        return wire.content(self._transport.send("POST", path, body=body, timeout=ANSWER_SECONDS))

    def get(self, uri: str, *, workspace: str | None = None) -> Any:
        """GET, as in `get("v1/models")`."""
        path = paths.at(paths.GATEWAY_OPENAI, workspace=workspace or self._workspace, uri=uri.lstrip("/"))
        return wire.content(self._transport.send("GET", path))


class ModelRoute(Resource):
    """`client.inference.gateway.model`: the model or adapter `name` answers, whatever the body says."""

    def post(self, uri: str, *, name: str, body: JsonObject, workspace: str | None = None) -> Any:
        """POST, as in `post("v1/chat/completions", name="triage", body={"messages": [...]})`."""
        path = self._at(paths.GATEWAY_MODEL, name, workspace, uri=uri.lstrip("/"))
        return wire.content(self._transport.send("POST", path, body=body, timeout=ANSWER_SECONDS))


class ProviderRoute(Resource):
    """`client.inference.gateway.provider`: straight to the server of the deployment `name`."""

    def post(self, uri: str, *, name: str, body: JsonObject, workspace: str | None = None) -> Any:
        """POST; an adapter is `workspace--adapter` here."""
        path = self._at(paths.GATEWAY_PROVIDER, name, workspace, uri=uri.lstrip("/"))
        return wire.content(self._transport.send("POST", path, body=body, timeout=ANSWER_SECONDS))

    def ready(self, name: str, *, workspace: str | None = None) -> JsonObject:
        """Where the gateway sends requests to; NotFoundError while it knows no such deployment."""
        response = self._transport.send("GET", self._at(paths.GATEWAY_PROVIDER_READY, name, workspace))
        answer: JsonObject = wire.content(response)
        return answer


class Gateway:
    """`client.inference.gateway`."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        self.openai = OpenaiRoute(transport, workspace)
        self.model = ModelRoute(transport, workspace)
        self.provider = ProviderRoute(transport, workspace)
