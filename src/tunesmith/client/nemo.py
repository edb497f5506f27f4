"""Gives the published `nemo-platform` client our `client.customization`, through its entry point group `nemo.sdk`.

Imported by that client alone, and the only module here that knows it. Calls travel through the client they hang on:
its address, headers, retries and exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from nemo_platform_plugin.sdk import AsyncNeMoPlatform, NeMoPlatform, NemoPluginSDKResources

from tunesmith.client.aio.customization import AsyncCustomization
from tunesmith.client.aio.transport import AsyncTransport
from tunesmith.client.options import find_workspace
from tunesmith.client.sync.customization import Customization
from tunesmith.client.sync.transport import Transport
from tunesmith.client.waiting import async_sleep, sleep


class _Borrowed(Transport):
    """Sends through a published client."""

    def __init__(self, platform: NeMoPlatform) -> None:
        self.base_url = str(platform.base_url).rstrip("/")
        self.sleep = sleep
        self._platform = platform

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> httpx.Response:
        """One request; refusals are the published client's exceptions."""
        response: httpx.Response = getattr(self._platform, method.lower())(path, **_call(method, query, body, headers))
        return response


class _AsyncBorrowed(AsyncTransport):
    """Sends through a published asynchronous client."""

    def __init__(self, platform: AsyncNeMoPlatform) -> None:
        self.base_url = str(platform.base_url).rstrip("/")
        self.sleep = async_sleep
        self._platform = platform

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> httpx.Response:
        """One request; refusals are the published client's exceptions."""
        response: httpx.Response = await getattr(self._platform, method.lower())(
            path, **_call(method, query, body, headers)
        )
        return response


def _call(method: str, query: Mapping[str, Any] | None, body: Any, headers: Mapping[str, str] | None) -> dict[str, Any]:
    """The published client's own way to make a call that it has no method for."""
    asked: dict[str, Any] = {"cast_to": httpx.Response, "options": {}}
    if query:
        asked["options"]["params"] = {key: value for key, value in query.items() if value is not None}
    if headers:
        asked["options"]["headers"] = dict(headers)
    if method != "GET":
        asked["body"] = body
    return asked


def _customization(platform: NeMoPlatform) -> Customization:
    return Customization(_Borrowed(platform), find_workspace(platform.workspace))


def _async_customization(platform: AsyncNeMoPlatform) -> AsyncCustomization:
    return AsyncCustomization(_AsyncBorrowed(platform), find_workspace(platform.workspace))


customization = NemoPluginSDKResources(sync_resource=_customization, async_resource=_async_customization)
