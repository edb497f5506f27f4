"""How a handler gets at the rooms behind it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from tunesmith.control.services import Services


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


House = Annotated[Services, Depends(_services)]
