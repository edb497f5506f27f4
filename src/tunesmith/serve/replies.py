"""What a caller gets, in OpenAI's shapes: whole answers, chunks of a stream, the list of models, errors."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

DONE = b"data: [DONE]\n\n"
"""The last event of a stream."""

Kind = Literal["chat", "completion"]
PREFIX: dict[Kind, str] = {"chat": "chatcmpl", "completion": "cmpl"}


@dataclass(slots=True)
class Usage:
    """Exact token counts; an end token counts, as it was generated."""

    prompt: int
    completion: int = 0

    def as_json(self) -> dict[str, int]:
        """OpenAI's names."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


@dataclass(slots=True)
class Answer:
    """The words around one request's text, whole or in chunks."""

    kind: Kind
    model: str
    usage: Usage
    with_usage: bool = False
    """Chunks carry `usage`: null, and the counts come in one more chunk."""
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = f"{PREFIX[self.kind]}-{uuid.uuid4().hex}"

    def whole(self, text: str, finish: str) -> dict[str, Any]:
        """The answer of a request that does not stream."""
        if self.kind == "chat":
            choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        else:
            choice = {"index": 0, "text": text}
        choices = [{**choice, "logprobs": None, "finish_reason": finish}]
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        return {**self._head(name), "choices": choices, "usage": self.usage.as_json()}

    def opening(self) -> bytes:
        """The first event: who speaks. Plain completions have none."""
        return self._chunk({"delta": {"role": "assistant", "content": ""}}, None) if self.kind == "chat" else b""

    def piece(self, text: str, finish: str | None) -> bytes:
        """An event with more text, or with the reason why there is no more, or both."""
        if self.kind == "completion":
            return self._chunk({"text": text}, finish)
        return self._chunk({"delta": {"content": text} if text else {}}, finish)

    def closing(self) -> bytes:
        """The last events: the counts, if asked for, and [DONE]."""
        if not self.with_usage:
            return DONE
        name = "chat.completion.chunk" if self.kind == "chat" else "text_completion"
        return event({**self._head(name), "choices": [], "usage": self.usage.as_json()}) + DONE

    def _chunk(self, content: dict[str, Any], finish: str | None) -> bytes:
        choices = [{"index": 0, **content, "logprobs": None, "finish_reason": finish}]
        name = "chat.completion.chunk" if self.kind == "chat" else "text_completion"
        usage = {"usage": None} if self.with_usage else {}
        return event({**self._head(name), "choices": choices, **usage})

    def _head(self, name: str) -> dict[str, Any]:
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def error_body(message: str, status: int, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object; `param` names the field at fault."""
    kind, code = ERRORS.get(status, ("invalid_request_error", None) if status < 500 else ("server_error", None))
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


ERRORS: dict[int, tuple[str, str | None]] = {
    401: ("authentication_error", "invalid_api_key"),
    404: ("not_found_error", "model_not_found"),
    503: ("server_error", "stopping"),
}
"""HTTP status -> type and code, where they are not the usual ones."""


def model_entry(name: str, created: int, root: str, parent: str | None, context: int) -> dict[str, Any]:
    """A line of GET /v1/models, in vLLM's shape; `parent` is the base of an adapter."""
    entry = {"id": name, "object": "model", "created": created, "owned_by": "tunesmith", "root": root}
    return {**entry, "parent": parent, "max_model_len": context}
