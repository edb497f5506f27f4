"""The application: rooms put together, routers hung up, the door in front."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from tunesmith import __version__
from tunesmith.control.services import Services
from tunesmith.server import (
    adapters,
    customization,
    deployments,
    doors,
    errors,
    filesets,
    gateway,
    health,
    hub,
    jobs,
    legacy,
    manual,
    models,
    platform_jobs,
    previews,
    projects,
    secrets,
    webhooks,
    workspaces,
)
from tunesmith.server.access import Door
from tunesmith.server.body import Body
from tunesmith.server.logs import Requests
from tunesmith.server.routes import hang_up
from tunesmith.settings import Settings

ROUTERS = (
    *(models, adapters, filesets, jobs, customization, health, platform_jobs),
    *(workspaces, projects, secrets, hub, deployments, gateway, previews, doors, legacy, manual, webhooks),
)
"""In the order in which a request is held against them: what is asked for most often comes first."""


def create_app(settings: Settings) -> FastAPI:
    """The platform over one data directory, which is opened when the app starts and closed when it stops."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        services = app.state.services = Services(settings)
        await services.start()
        try:
            yield
        finally:
            await services.stop()

    app = FastAPI(
        title="Tunesmith",
        version=__version__,
        summary="Your data and a base model in, a model that answers out.",
        lifespan=life,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's own page needs other machines; ours is in manual.py
        redoc_url=None,
    )
    hang_up(app, (room.router for room in ROUTERS))
    errors.install(app)
    app.add_middleware(Body)
    app.add_middleware(Door, settings=settings)
    app.add_middleware(Requests)  # added last, so it stands in front
    return app
