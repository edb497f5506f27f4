"""One handler for every way of saying no: `{"detail": ...}` with the status of the error's class."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from tunesmith.errors import TunesmithError

log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Answer domain errors and surprises; request validation keeps FastAPI's own 422 list, which is the wire's."""

    @app.exception_handler(TunesmithError)
    async def refuse(_request: Request, error: TunesmithError) -> JSONResponse:
        headers = {"x-should-retry": "false"} if error.status in (409, 507) else {}
        if error.status == 503:
            headers["retry-after"] = "1"
        return JSONResponse({"detail": error.message}, error.status, headers=headers)

    @app.exception_handler(Exception)
    async def surprise(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse({"detail": "An unexpected error occurred."}, 500)
