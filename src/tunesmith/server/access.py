"""The door: web pages of strangers stay out.

A browser on this machine reaches loopback for any page that it shows. So the Host header must be a name under which
this server may be addressed (a page cannot rebind its own name to us), and a request that changes something must not
come from a foreign page. No CORS header is ever sent, so foreign pages cannot read answers either.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tunesmith.settings import Settings

WELCOME_KEPT = 64
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Door:
    """ASGI middleware that refuses foreign hosts and origins."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._welcome: set[bytes | None] = set()
        """Host headers that were looked at and are ours."""
        self.names = {"localhost", socket.gethostname().lower(), settings.host.lower(), *settings.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400 or 403 with the reason."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        host_header = origin_header = site = None
        for key, value in scope["headers"]:
            if key == b"host":
                host_header = value
            elif key == b"origin":
                origin_header = value
            elif key == b"sec-fetch-site":
                site = value
        if host_header not in self._welcome:
            host = _hostname((host_header or b"").decode("latin-1"))
            if not self._is_ours(host):
                reason = f"Host '{host[:80]}' is not a name of this server; add it to TUNESMITH_ALLOWED_HOSTS if so"
                return JSONResponse({"detail": reason}, 400)
            if len(self._welcome) < WELCOME_KEPT:
                self._welcome.add(host_header)
        if scope["method"] in SAFE_METHODS or (origin_header is None and site is None):
            return None
        host = _hostname((host_header or b"").decode("latin-1"))
        origin = None if origin_header is None else origin_header.decode("latin-1")
        if site == b"cross-site" or (origin is not None and not self._is_same(origin, host)):
            reason = f"A page of another origin ({(origin or 'unknown')[:80]}) may not change anything here"
            return JSONResponse({"detail": reason}, 403)
        return None

    def _is_ours(self, host: str) -> bool:
        """A name we know, or an address: a page's own name can be rebound to us, an address cannot."""
        if host in self.names or host.endswith(".localhost"):
            return True
        try:
            ip_address(host)
        except ValueError:
            return False
        return True

    def _is_same(self, origin: str, host: str) -> bool:
        name = _hostname(origin.partition("://")[2])
        return name == host or (name in self.names and host in self.names)


def _hostname(header: str) -> str:
    """The name or address in a Host header, without port and brackets, lower-case."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""
