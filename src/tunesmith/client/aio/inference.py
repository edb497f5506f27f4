"""Asking models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from tunesmith.api import paths
from tunesmith.api.base import JsonObject
from tunesmith.client import wire
from tunesmith.client.aio.deployments import AsyncDeploymentConfigs, AsyncDeployments
from tunesmith.client.aio.gateway import AsyncGateway
from tunesmith.client.aio.resource import AsyncResource
from tunesmith.client.aio.stream import AsyncChunks
from tunesmith.client.aio.transport import AsyncTransport
from tunesmith.client.options import ANSWER_SECONDS

CHAT = "v1/chat/completions"
COMPLETE = "v1/completions"


class AsyncInference(AsyncResource):
    """`client.inference`. Answers are plain dicts (streamed: chunks) in OpenAI's shape."""

    def __init__(self, transport: AsyncTransport, workspace: str) -> None:
        super().__init__(transport, workspace)
        self.deployment_configs = AsyncDeploymentConfigs(transport, workspace)
        self.deployments = AsyncDeployments(transport, workspace)
        self.gateway = AsyncGateway(transport, workspace)

    @overload
    async def chat(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        stream: Literal[False] = False,
        workspace: str | None = None,
        **params: Any,
    ) -> JsonObject: ...

    @overload
    async def chat(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        stream: Literal[True],
        workspace: str | None = None,
        **params: Any,
    ) -> AsyncChunks: ...

    async def chat(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        stream: bool = False,
        workspace: str | None = None,
        **params: Any,
    ) -> JsonObject | AsyncChunks:
        """Continue a conversation. `model` is a model or an adapter that is served; `params` (temperature, max_tokens,
        ...) go along as they are. The text is in `answer["choices"][0]["message"]["content"]`, or piece by piece in
        `chunk["choices"][0]["delta"]`."""
        return await self._ask(
            CHAT, workspace, {"model": model, "messages": list(messages), "stream": stream, **params}
        )

    @overload
    async def complete(
        self, *, model: str, prompt: str, stream: Literal[False] = False, workspace: str | None = None, **params: Any
    ) -> JsonObject: ...

    @overload
    async def complete(
        self, *, model: str, prompt: str, stream: Literal[True], workspace: str | None = None, **params: Any
    ) -> AsyncChunks: ...

    async def complete(
        self, *, model: str, prompt: str, stream: bool = False, workspace: str | None = None, **params: Any
    ) -> JsonObject | AsyncChunks:
        """Continue a text, without a chat template; as `chat`, with the text in `choices[0]["text"]`."""
        return await self._ask(COMPLETE, workspace, {"model": model, "prompt": prompt, "stream": stream, **params})

    async def _ask(self, uri: str, workspace: str | None, body: JsonObject) -> JsonObject | AsyncChunks:
        path = paths.at(paths.GATEWAY_OPENAI, workspace=workspace or self._workspace, uri=uri)
        stream = bool(body["stream"])
        response = await self._transport.send("POST", path, body=body, timeout=ANSWER_SECONDS, stream=stream)
        if stream:
            return AsyncChunks(self._transport, response)
        answer: JsonObject = wire.content(response)
        return answer
