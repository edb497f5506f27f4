# Made by scripts/unasync.py from ../aio/transport.py: change that file and run the script again.
"""One HTTP client under all resources: addresses, retries, and answers that say no as exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from tunesmith.client import retry, wire
from tunesmith.client.errors import APIConnectionError, APITimeoutError
from tunesmith.client.options import HEADERS, silence
from tunesmith.client.waiting import Sleep

M = TypeVar("M", bound=BaseModel)

Content = Callable[[], Iterator[bytes] | bytes]
"""Makes a request's body anew for each attempt."""


class Transport:
    """Sends requests. `transport` replaces the network, `sleep` the pauses; tests give their own."""

    def __init__(
        self,
        base_url: str,
        timeout: float,
        max_retries: int,
        transport: httpx.BaseTransport | None,
        sleep: Sleep,
    ) -> None:
        self.base_url = base_url
        self.sleep = sleep
        self._max_retries = max_retries
        self._http = httpx.Client(headers=HEADERS, timeout=silence(timeout), transport=transport, follow_redirects=True)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, answer: type[M], path: str, query: Mapping[str, Any] | None = None) -> M:
        """GET, and the answer as a model."""
        return wire.read(answer, self.send("GET", path, query=query))

    def post(
        self, answer: type[M], path: str, body: Any = None, *, idempotent: bool = False, key: str | None = None
    ) -> M:
        """POST, and the answer as a model.

        `key` makes the call idempotent: the platform answers the same key with what it made the first time.
        """
        headers = {retry.KEY_HEADER: key} if key else None
        safe = idempotent or key is not None
        return wire.read(answer, self.send("POST", path, body=body, headers=headers, idempotent=safe))

    def put(self, answer: type[M], path: str, body: Any) -> M:
        """PUT, and the answer as a model."""
        return wire.read(answer, self.send("PUT", path, body=body))

    def patch(self, answer: type[M], path: str, body: Any) -> M:
        """PATCH, and the answer as a model."""
        return wire.read(answer, self.send("PATCH", path, body=body))

    def delete(self, path: str, answer: type[M]) -> M:
        """DELETE, and the answer as a model."""
        return wire.read(answer, self.send("DELETE", path))

    def remove(self, path: str) -> None:
        """DELETE where the answer says nothing."""
        self.send("DELETE", path)

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content: Content | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stream: bool = False,
        idempotent: bool = False,
        max_retries: int | None = None,
    ) -> httpx.Response:
        """One request, repeated as `retry` says; the answer, read unless `stream`.

        Raises APIConnectionError, APITimeoutError and the APIStatusErrors. With `stream` the caller closes the answer.
        """
        safe = idempotent or retry.repeatable(method)
        retries = self._max_retries if max_retries is None else max_retries
        fixed: dict[str, Any] = {
            "params": {key: value for key, value in (query or {}).items() if value is not None} or None,
            "json": body,
            "headers": headers,
            "timeout": silence(timeout) if timeout else httpx.USE_CLIENT_DEFAULT,
        }
        for attempt in range(retries + 1):
            last = attempt == retries
            made = content() if content else None
            request = self._http.build_request(method, self.base_url + path, content=made, **fixed)
            try:
                response = self._http.send(request, stream=True)
                if response.is_success and stream:
                    return response
                response.read()
            except httpx.TransportError as error:
                if last or not retry.after_failure(error, safe):
                    raise self.failure(error) from error
                self.sleep(retry.pause(attempt))
                continue
            if response.is_success:
                return response
            if last or not retry.after_answer(response, safe):
                raise wire.refused(response)
            self.sleep(retry.pause(attempt, response))
        raise AssertionError("the last attempt returns or raises")

    def failure(self, error: httpx.TransportError) -> APIConnectionError:
        """What no answer means to the user."""
        kind = APITimeoutError if isinstance(error, httpx.TimeoutException) else APIConnectionError
        return kind.at(self.base_url, error)
