"""The application: rooms put together, routers hung up, the door in front."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from tunesmith import __version__
from tunesmith.control.services import Services
from tunesmith.server import adapters, deployments, errors, filesets, gateway, health, jobs, models, workspaces
from tunesmith.server.access import Door
from tunesmith.settings import Settings

ROUTERS = (health, workspaces, filesets, models, adapters, jobs, deployments, gateway)


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
    )
    for room in ROUTERS:
        app.include_router(room.router)
    errors.install(app)
    app.add_middleware(Door, settings=settings)
    return app
