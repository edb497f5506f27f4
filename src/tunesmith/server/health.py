"""Is it alive, is it ready, how are its loops, what is it."""

from __future__ import annotations

from typing import Literal

from fastapi.responses import JSONResponse, PlainTextResponse

from tunesmith import __version__
from tunesmith.api import paths
from tunesmith.api.health import (
    AuthDiscovery,
    ClusterInfo,
    Controllers,
    CustomizationHealth,
    Live,
    NotReady,
    Ready,
    ServiceStates,
    Status,
)
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("health")

WIRE_VERSION = "0.3.0"
"""The platform whose protocol this server speaks."""
SERVICES = ("auth", "customization", "entities", "files", "inference-gateway", "jobs", "models", "secrets")
DIALECTS = ("automodel", "rl", "unsloth")
"""Customization jobs that can be submitted, sorted."""


@router.get("/", response_class=PlainTextResponse, include_in_schema=False)
async def root() -> str:
    """What this is, for somebody who opens the address."""
    return f"Tunesmith {__version__}. The API is described at /docs and /openapi.json.\n"


@router.get(paths.HEALTH_LIVE)
async def live() -> Live:
    """The process answers."""
    return Live()


@router.get(paths.HEALTH_READY, response_model=Ready)
async def ready(house: House) -> Ready | JSONResponse:
    """The database answers; 503 as long as it does not."""
    if await house.not_ready():
        return JSONResponse({"detail": {"status": "not_ready"}}, 503)
    return Ready()


@router.get(paths.STATUS)
async def status(house: House) -> Status:
    """Which services and loops run, and which items' last turn failed."""
    loops = house.loops_alive
    reason = await house.not_ready()
    well = all(loops.values())
    down = [NotReady(name=name, message=reason) for name in SERVICES] if reason else []
    degraded: Literal["degraded", "healthy"] = "degraded" if house.failures else "healthy"
    return Status(
        status=degraded if well and not reason else "unhealthy",
        services=ServiceStates(ready=[] if reason else list(SERVICES), not_ready=down),
        controllers=Controllers(healthy=well, status=loops),
        failures=house.failures,
        version=__version__,
    )


@router.get(paths.CLUSTER_INFO)
async def cluster_info() -> ClusterInfo:
    """The version of the wire protocol, and ours."""
    return ClusterInfo(platform_version=WIRE_VERSION, revision=f"tunesmith-{__version__}")


@router.get(paths.AUTH_DISCOVERY)
async def auth_discovery() -> AuthDiscovery:
    """How to prove who one is: not at all, there is no authentication yet."""
    return AuthDiscovery()


@router.get(paths.CUSTOMIZATION_HEALTH)
async def customization_health() -> CustomizationHealth:
    """The customization service and the dialects it understands."""
    return CustomizationHealth(contributors=list(DIALECTS))
