"""The HTTP face of the engine: OpenAI's routes, and vLLM's two calls for adapters."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.data.template import ChatTemplate
from tunesmith.data.tokens import Tokenizer
from tunesmith.errors import DataError, Invalid, TunesmithError
from tunesmith.generate.adapters import Adapter
from tunesmith.generate.engine import Engine
from tunesmith.generate.request import Piece
from tunesmith.generate.request import Request as Generation
from tunesmith.serve.adapters import Adapters
from tunesmith.serve.replies import Answer, Kind, Usage, error_body, event, model_entry
from tunesmith.serve.requests import ChatRequest, CompletionRequest, Continue, LoadAdapter, UnloadAdapter

log = logging.getLogger("tunesmith.serve")


@dataclass(slots=True)
class Serving:
    """What the routes work with."""

    engine: Engine
    adapters: Adapters
    tokenizer: Tokenizer
    template: ChatTemplate | None
    base: str
    started: int


@dataclass(slots=True)
class Answering:
    """A request in the batch, and what comes of it."""

    generation: Generation
    pieces: asyncio.Queue[Piece]
    answer: Answer


def make_app(serving: Serving, token: str) -> FastAPI:
    """The ASGI application; with `token` "" anyone may call."""
    app = FastAPI(title="Tunesmith serving", openapi_url=None)
    app.add_middleware(Gate, token=token)
    app.add_exception_handler(TunesmithError, _refuse)
    app.add_exception_handler(RequestValidationError, _name_the_field)
    app.add_exception_handler(HTTPException, _no_such_route)
    app.add_exception_handler(Exception, _own_fault)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        context = serving.engine.context
        entries = [model_entry(serving.base, serving.started, serving.base, None, context)]
        for name, served in serving.adapters.listing():
            entries.append(model_entry(name, served.created, served.path, serving.base, context))
        return {"object": "list", "data": entries}

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(asked: ChatRequest, request: Request) -> Response:
        adapter = serving.adapters.find(asked.model)
        prompt = await asyncio.to_thread(_render, serving, asked)
        limit = asked.limit or max(1, serving.engine.context - len(prompt))
        answering = _begin(serving, "chat", asked, prompt, limit, adapter)
        return await _reply(answering, asked.stream, request)

    @app.post("/v1/completions", response_model=None)
    async def completions(asked: CompletionRequest, request: Request) -> Response:
        adapter = serving.adapters.find(asked.model)
        prompt = asked.prompt
        if isinstance(prompt, str):
            prompt = await asyncio.to_thread(serving.tokenizer.encode, prompt, True)
        answering = _begin(serving, "completion", asked, prompt, asked.limit, adapter)
        return await _reply(answering, asked.stream, request)

    @app.post("/v1/load_lora_adapter")
    async def load(asked: LoadAdapter) -> PlainTextResponse:
        await asyncio.to_thread(serving.adapters.load, asked.lora_name, asked.lora_path)
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(asked: UnloadAdapter) -> PlainTextResponse:
        serving.adapters.unload(asked.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")

    return app


def _render(serving: Serving, asked: ChatRequest) -> list[int]:
    if serving.template is None:
        raise Invalid(f"`{serving.base}` has no chat template; use /v1/completions")
    messages = [message.for_template() for message in asked.messages]
    return serving.tokenizer.encode(serving.template.render(messages))


def _begin(
    serving: Serving, kind: Kind, asked: Continue, prompt: list[int], limit: int, adapter: Adapter | None
) -> Answering:
    """Put the request into the batch; Invalid if it cannot be answered."""
    pieces: asyncio.Queue[Piece] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def emit(piece: Piece) -> None:
        with suppress(RuntimeError):  # the loop is closed: the process is stopping and nobody listens
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

    generation = Generation(
        prompt=prompt,
        sampling=asked.sampling(),
        most_tokens=limit,
        emit=emit,
        adapter=adapter,
        stops=asked.stops,
        ignore_end=asked.ignore_eos,
    )
    serving.engine.submit(generation)
    return Answering(generation, pieces, Answer(kind, asked.model, Usage(len(prompt)), asked.include_usage))


async def _reply(answering: Answering, stream: bool | None, request: Request) -> Response:
    """The whole answer, or a stream of it. If the caller hangs up, the request leaves the batch."""
    if stream:
        return StreamingResponse(_stream(answering), media_type="text/event-stream")
    gone = asyncio.create_task(_disconnected(request))
    whole = asyncio.create_task(_whole(answering))
    try:
        await asyncio.wait((gone, whole), return_when=asyncio.FIRST_COMPLETED)
        return await whole if whole.done() else Response(status_code=CLIENT_GONE)
    finally:
        answering.generation.cancelled = True
        gone.cancel()
        whole.cancel()


CLIENT_GONE = 499
"""Status in the log of a request whose caller hung up; nobody receives it."""


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _whole(answering: Answering) -> Response:
    answer, texts = answering.answer, []
    while True:
        piece = await answering.pieces.get()
        texts.append(piece.text)
        answer.usage.completion += len(piece.tokens)
        if piece.finish == "failed":
            return JSONResponse(error_body(piece.error, 500), 500)
        if piece.finish:
            return JSONResponse(answer.whole("".join(texts), piece.finish))


async def _stream(answering: Answering) -> AsyncIterator[bytes]:
    answer = answering.answer
    try:
        if opening := answer.opening():
            yield opening
        while True:
            piece = await answering.pieces.get()
            answer.usage.completion += len(piece.tokens)
            if piece.finish == "failed":
                yield event(error_body(piece.error, 500))
                return
            if piece.text or piece.finish:
                yield answer.piece(piece.text, piece.finish)
            if piece.finish:
                break
        yield answer.closing()
    finally:
        answering.generation.cancelled = True


class Gate:
    """Lets nobody in without the token, and writes one line per request to the log."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._wanted = f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        cause = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._through(scope, receive, noting)
        finally:
            seconds = time.monotonic() - began
            log.info("%s %s %d %.3f s [%s]", scope["method"], scope["path"], status, seconds, cause)

    async def _through(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        if self._wanted and not hmac.compare_digest(given, self._wanted):
            message = "this server wants `Authorization: Bearer <token>`, and the token given is missing or wrong"
            await JSONResponse(error_body(message, 401), 401)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _refuse(_: Request, error: Exception) -> Response:
    """Our own errors. What the caller's messages do to a template, or ask too much of the context, is a 400."""
    assert isinstance(error, TunesmithError)
    status = 400 if isinstance(error, Invalid | DataError) else error.status
    return JSONResponse(error_body(error.message, status), status)


async def _name_the_field(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part != "body" and part not in _BRANCHES]
    field, message = ".".join(path), first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "is not a field of this call, or not built yet"
    elif first["type"] in ("json_invalid", "model_attributes_type"):
        field, message = "", "the body must be a JSON object, sent with `Content-Type: application/json`"
    elif first["type"] in ("literal_error", "too_long"):
        message = f"{message}; other values are not built yet"
    return JSONResponse(error_body(f"{field}: {message}" if field else message, 400, field or None), 400)


_BRANCHES = {"str", "constrained-str", "list[int]", "list[TextPart]", "list[constrained-str]"}
"""What pydantic puts into an error's path for the branches of a union; no field is named so."""


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = error_body(f"{request.method} {request.url.path}: {error.detail}", error.status_code)
    body["error"]["code"] = None
    return JSONResponse(body, error.status_code, headers=error.headers)


async def _own_fault(_: Request, error: Exception) -> Response:
    log.exception("a request failed", exc_info=error)
    return JSONResponse(error_body(f"{type(error).__name__}: {error}", 500), 500)
