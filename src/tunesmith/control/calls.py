"""The client for the calls that the server itself makes, to serving processes and to receivers of webhooks."""

from __future__ import annotations

import httpx


def caller() -> httpx.AsyncClient:
    """A client without proxies, time-outs and bounds of its own; who calls sets them."""
    return httpx.AsyncClient(transport=_Late(), timeout=None, trust_env=False)  # noqa: S113


class _Late(httpx.AsyncBaseTransport):
    """Opened by the first call: to read the machine's certificates is a twentieth of the server's start."""

    def __init__(self) -> None:
        self._opened: httpx.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it."""
        if self._opened is None:
            self._opened = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None), trust_env=False)
        return await self._opened.handle_async_request(request)

    async def aclose(self) -> None:
        """Close what was opened."""
        if self._opened is not None:
            await self._opened.aclose()
