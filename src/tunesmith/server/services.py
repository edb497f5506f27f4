"""How a handler gets at the rooms behind it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from fastapi import Depends, Request

from tunesmith.control.services import Services
from tunesmith.errors import Invalid, NotFound


async def _services(request: Request) -> Services:  # async, else FastAPI calls it in a thread
    services: Services = request.app.state.services
    if closing := services.workspaces.closing:
        _keep_out(request, closing)
    return services


def _keep_out(request: Request, closing: Collection[str]) -> None:
    """Answer as if the workspaces that are being deleted were gone: NotFound, or Invalid for something new in one."""
    workspace = request.path_params.get("workspace")
    if workspace not in closing:
        return
    if request.method == "POST" and len(request.path_params) == 1:
        raise Invalid(f"Workspace '{workspace}' does not exist. Please create the workspace first.")
    raise NotFound(f"Workspace '{workspace}' not found")


House = Annotated[Services, Depends(_services)]
