# Made by scripts/unasync.py from ../aio/inference.py: change that file and run the script again.
"""Asking models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from tunesmith.api import paths
from tunesmith.api.base import JsonObject
from tunesmith.client import wire
from tunesmith.client.options import ANSWER_SECONDS
from tunesmith.client.sync.deployments import DeploymentConfigs, Deployments
from tunesmith.client.sync.gateway import Gateway
from tunesmith.client.sync.resource import Resource
from tunesmith.client.sync.stream import Chunks
from tunesmith.client.sync.transport import Transport

CHAT = "v1/chat/completions"
COMPLETE = "v1/completions"


class Inference(Resource):
    """`client.inference`. Answers are plain dicts (streamed: chunks) in OpenAI's shape."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        super().__init__(transport, workspace)
        self.deployment_configs = DeploymentConfigs(transport, workspace)
        self.deployments = Deployments(transport, workspace)
        self.gateway = Gateway(transport, workspace)

    @overload
    def chat(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        stream: Literal[False] = False,
        workspace: str | None = None,
        **params: Any,
    ) -> JsonObject: ...

    @overload
    def chat(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        stream: Literal[True],
        workspace: str | None = None,
        **params: Any,
    ) -> Chunks: ...

    def chat(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        stream: bool = False,
        workspace: str | None = None,
        **params: Any,
    ) -> JsonObject | Chunks:
        """Continue a conversation. `model` is a model or an adapter that is served; `params` (temperature, max_tokens,
        ...) go along as they are. The text is in `answer["choices"][0]["message"]["content"]`, or piece by piece in
        `chunk["choices"][0]["delta"]`."""
        return self._ask(CHAT, workspace, {"model": model, "messages": list(messages), "stream": stream, **params})

    @overload
    def complete(
        self, *, model: str, prompt: str, stream: Literal[False] = False, workspace: str | None = None, **params: Any
    ) -> JsonObject: ...

    @overload
    def complete(
        self, *, model: str, prompt: str, stream: Literal[True], workspace: str | None = None, **params: Any
    ) -> Chunks: ...

    def complete(
        self, *, model: str, prompt: str, stream: bool = False, workspace: str | None = None, **params: Any
    ) -> JsonObject | Chunks:
        """Continue a text, without a chat template; as `chat`, with the text in `choices[0]["text"]`."""
        return self._ask(COMPLETE, workspace, {"model": model, "prompt": prompt, "stream": stream, **params})

    def _ask(self, uri: str, workspace: str | None, body: JsonObject) -> JsonObject | Chunks:
        path = paths.at(paths.GATEWAY_OPENAI, workspace=workspace or self._workspace, uri=uri)
        stream = bool(body["stream"])
        response = self._transport.send("POST", path, body=body, timeout=ANSWER_SECONDS, stream=stream)
        if stream:
            return Chunks(self._transport, response)
        answer: JsonObject = wire.content(response)
        return answer
