"""Speaks with one serving process: its health, what it serves, and vLLM's two adapter calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx

from tunesmith.errors import EngineError

CALL_SECONDS = 30.0
"""Loading an adapter includes its probe."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a serving process listens, and the token that it demands."""

    port: int
    token: str

    @property
    def url(self) -> str:
        """Base of all its routes."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What every call needs."""
        return {"authorization": f"Bearer {self.token}"}


class ServingClient:
    """Calls of the reconciler; EngineError when a process cannot be reached or refuses."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def healthy(self, at: Endpoint) -> bool:
        """Whether it answers."""
        try:
            answer = await self.http.get(f"{at.url}/health", headers=at.headers, timeout=CALL_SECONDS)
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK

    async def adapters(self, at: Endpoint) -> set[str]:
        """Names of the adapters it serves now."""
        answer = await self._call("GET", at, "/v1/models")
        return {model["id"] for model in answer.json()["data"] if model.get("parent")}

    async def load(self, at: Endpoint, name: str, path: Path) -> None:
        """Serve the adapter in `path` under `name`; EngineError with the process's reason."""
        await self._call("POST", at, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})

    async def unload(self, at: Endpoint, name: str) -> None:
        """Serve it no longer; running requests finish on it."""
        await self._call("POST", at, "/v1/unload_lora_adapter", {"lora_name": name})

    async def _call(self, method: str, at: Endpoint, path: str, body: dict[str, str] | None = None) -> httpx.Response:
        try:
            answer = await self.http.request(method, at.url + path, headers=at.headers, json=body, timeout=CALL_SECONDS)
        except httpx.HTTPError as error:
            raise EngineError(f"the serving process at {at.url} did not answer: {error}") from None
        if answer.is_error:
            raise EngineError(f"the serving process refused {path}: {_reason(answer)}")
        return answer


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]
