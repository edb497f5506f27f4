"""Is the server alive, is it ready, how are its loops, what is it."""

from __future__ import annotations

from typing import Literal

from tunesmith.api.base import Resource


class Live(Resource):
    """The process answers."""

    status: Literal["live"] = "live"


class Ready(Resource):
    """Requests can be answered."""

    status: Literal["ready"] = "ready"


class NotReady(Resource):
    """A service that cannot answer."""

    name: str
    message: str


class ServiceStates(Resource):
    """Which services answer."""

    ready: list[str]
    not_ready: list[NotReady]


class Controllers(Resource):
    """The loops that carry out what was asked for."""

    healthy: bool
    """Whether all of them run."""
    status: dict[str, bool]
    """Whether each runs."""


class Status(Resource):
    """How the server is doing."""

    status: Literal["healthy", "degraded", "unhealthy"]
    """degraded = the last turn of some item failed; unhealthy = a loop or the database is down."""
    services: ServiceStates
    controllers: Controllers
    failures: dict[str, str]
    """By loop and item: what its last turn raised, until a turn succeeds."""
    version: str


class ClusterInfo(Resource):
    """The version of the wire protocol, and ours."""

    platform_version: str
    revision: str


class AuthDiscovery(Resource):
    """How to prove who one is."""

    auth_enabled: Literal[False] = False
    """There is no authentication yet."""
    oidc: None = None


class CustomizationHealth(Resource):
    """The customization service and the dialects it understands."""

    plugin: Literal["customization"] = "customization"
    status: Literal["ok"] = "ok"
    contributors: list[str]
