"""Is it alive, is it ready, how are its loops."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from tunesmith import __version__
from tunesmith.api import paths
from tunesmith.server.services import House

router = APIRouter(tags=["health"])


@router.get("/", response_class=PlainTextResponse, include_in_schema=False)
async def root() -> str:
    """What this is, for somebody who opens the address."""
    return f"Tunesmith {__version__}. The API is described at /docs and /openapi.json.\n"


@router.get(paths.HEALTH_LIVE)
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@router.get(paths.HEALTH_READY)
async def ready(house: House) -> dict[str, str]:
    """The database answers."""
    await house.workspaces.get("default")
    return {"status": "ready"}


@router.get(paths.STATUS)
async def status(house: House) -> dict[str, Any]:
    """Which loops run, and which items' last turn failed."""
    loops = house.loops_alive
    well = all(loops.values())
    health = ("healthy" if not house.failures else "degraded") if well else "unhealthy"
    return {
        "status": health,
        "services": {"ready": ["entities", "files", "models", "jobs", "customization", "inference"], "not_ready": []},
        "controllers": {"healthy": well, "status": loops},
        "failures": house.failures,
    }
