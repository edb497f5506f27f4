"""What the server writes down: lines for people on a terminal, JSON lines otherwise, each with its request's id."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, TextIO

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.control.request_id import HEADER, REQUEST_ID, take
from tunesmith.settings import Settings

log = logging.getLogger(__name__)

READS = frozenset({"GET", "HEAD", "OPTIONS"})
FIRST_ERROR = 400
_HEADER = HEADER.lower().encode()


def set_up(settings: Settings, stream: TextIO | None = None) -> None:
    """Send every logger to `stream` (default: standard error) in the format of the settings."""
    stream = sys.stderr if stream is None else stream
    as_text = settings.log_format == "text" or (settings.log_format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ForPeople() if as_text else ForMachines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for talkative in ("httpx", "httpcore", "botocore", "urllib3"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


class ForPeople(logging.Formatter):
    """`time level logger: message [request id]`, then the traceback if there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 logging's name
        """The line without its traceback."""
        request_id = REQUEST_ID.get()
        return super().formatMessage(record) + (f" [{request_id}]" if request_id else "")


class ForMachines(logging.Formatter):
    """One JSON object a line: at, level, logger, message, request_id, what `extra={"facts": {...}}` holds, error."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            line["request_id"] = request_id
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Requests:
    """ASGI middleware, the outermost: gives each request its id, writes its line, answers what nobody caught.

    Query strings and bodies are never written down: they may hold what is nobody's business.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; its answer carries X-Request-ID."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = take(next((value for key, value in scope["headers"] if key == _HEADER), None))
        REQUEST_ID.set(request_id)  # a request is a task of its own, so nothing has to be set back
        header = (_HEADER, request_id.encode())
        began, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            start = message["type"] == "http.response.start"
            if start:
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)
            if start:
                status = message["status"]

        try:
            await self.app(scope, receive, answer)
        except ClientDisconnect:
            log.info("%s %s: the caller left", scope["method"], _path(scope))
            return
        except Exception:  # the edge: a surprise becomes a 500, or cuts the answer that had begun
            log.exception("%s %s failed", scope["method"], _path(scope))
            if status:
                raise
            close = {"connection": "close"}
            await JSONResponse({"detail": "An unexpected error occurred."}, 500, close)(scope, receive, answer)
        read_well = scope["method"] in READS and status < FIRST_ERROR
        level = logging.DEBUG if read_well else logging.INFO
        if log.isEnabledFor(level):
            milliseconds = round((time.perf_counter() - began) * 1000, 1)
            facts = {"method": scope["method"], "path": _path(scope), "status": status, "milliseconds": milliseconds}
            log.log(level, "%s %s %d in %.1f ms", *facts.values(), extra={"facts": facts})


def _path(scope: Scope) -> str:
    """The path as it was sent, without its query: still percent-encoded, so it cannot forge a line."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0].decode("ascii", "backslashreplace")
