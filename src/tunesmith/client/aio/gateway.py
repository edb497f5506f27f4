"""The inference gateway, raw: bodies go through as they are, answers come back as dicts."""

from __future__ import annotations

from typing import Any

from tunesmith.api import paths
from tunesmith.api.base import JsonObject
from tunesmith.client import wire
from tunesmith.client.aio.resource import AsyncResource
from tunesmith.client.aio.transport import AsyncTransport
from tunesmith.client.options import ANSWER_SECONDS


class AsyncOpenaiRoute(AsyncResource):
    """`client.inference.gateway.openai`: the body's `model`, a model or an adapter, says who answers."""

    async def post(self, uri: str, *, body: JsonObject, workspace: str | None = None) -> Any:
        """POST, as in `post("v1/chat/completions", body={"model": "default/triage", "messages": [...]})`."""
        path = paths.at(paths.GATEWAY_OPENAI, workspace=workspace or self._workspace, uri=uri.lstrip("/"))
        return wire.content(await self._transport.send("POST", path, body=body, timeout=ANSWER_SECONDS))

    async def get(self, uri: str, *, workspace: str | None = None) -> Any:
        """GET, as in `get("v1/models")`."""
        path = paths.at(paths.GATEWAY_OPENAI, workspace=workspace or self._workspace, uri=uri.lstrip("/"))
        return wire.content(await self._transport.send("GET", path))


class AsyncModelRoute(AsyncResource):
    """`client.inference.gateway.model`: the model or adapter `name` answers, whatever the body says."""

    async def post(self, uri: str, *, name: str, body: JsonObject, workspace: str | None = None) -> Any:
        """POST, as in `post("v1/chat/completions", name="triage", body={"messages": [...]})`."""
        path = self._at(paths.GATEWAY_MODEL, name, workspace, uri=uri.lstrip("/"))
        return wire.content(await self._transport.send("POST", path, body=body, timeout=ANSWER_SECONDS))


class AsyncProviderRoute(AsyncResource):
    """`client.inference.gateway.provider`: straight to the server of the deployment `name`."""

    async def post(self, uri: str, *, name: str, body: JsonObject, workspace: str | None = None) -> Any:
        """POST; an adapter is `workspace--adapter` here."""
        path = self._at(paths.GATEWAY_PROVIDER, name, workspace, uri=uri.lstrip("/"))
        return wire.content(await self._transport.send("POST", path, body=body, timeout=ANSWER_SECONDS))

    async def ready(self, name: str, *, workspace: str | None = None) -> JsonObject:
        """Where the gateway sends requests to; NotFoundError while it knows no such deployment."""
        response = await self._transport.send("GET", self._at(paths.GATEWAY_PROVIDER_READY, name, workspace))
        answer: JsonObject = wire.content(response)
        return answer


class AsyncGateway:
    """`client.inference.gateway`."""

    def __init__(self, transport: AsyncTransport, workspace: str) -> None:
        self.openai = AsyncOpenaiRoute(transport, workspace)
        self.model = AsyncModelRoute(transport, workspace)
        self.provider = AsyncProviderRoute(transport, workspace)
