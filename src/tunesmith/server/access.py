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
DEFAULT_PORTS = {"http": 80, "https": 443}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Door:
    """ASGI middleware that refuses foreign hosts and origins."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._welcome: set[bytes | None] = set()
        """Host headers that were looked at and are ours."""
        self.allowed = frozenset(settings.allowed_hosts)
        """Names that the operator gave us, perhaps those of a proxy: their pages are ours, whatever their port."""
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
        address = (host_header or b"").decode("latin-1")
        origin = None if origin_header is None else origin_header.decode("latin-1")
        if site == b"cross-site" or (origin is not None and not self._is_same(origin, address)):
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

    def _is_same(self, origin: str, address: str) -> bool:
        """Whether a page of `origin` is ours: its name and its port are those under which this server was addressed."""
        scheme, _, theirs = origin.partition("://")
        name, host = _hostname(theirs), _hostname(address)
        if name in self.allowed and host in self.names:
            return True
        if scheme not in DEFAULT_PORTS or _port(theirs, scheme) != _port(address, scheme):
            return False
        return name == host or (name in self.names and host in self.names)


def _hostname(header: str) -> str:
    """The name or address in a Host header, without port and brackets, lower-case."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _port(header: str, scheme: str) -> int | None:
    """The port in a Host header, or the one that `scheme` has without; None for what is no port."""
    try:
        return urlsplit(f"//{header}").port or DEFAULT_PORTS.get(scheme)
    except ValueError:
        return None
