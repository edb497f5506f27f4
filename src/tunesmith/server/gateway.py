"""The OpenAI-compatible gateway: finds the serving process behind a model's name and passes the request on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from tunesmith.api import paths
from tunesmith.api.deployments import GatewayModel, GatewayModels
from tunesmith.control.request_id import HEADER, REQUEST_ID
from tunesmith.control.routing import Target
from tunesmith.errors import BadRequest, NotFound, Upstream
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("gateway")

SERVED = frozenset({"v1/chat/completions", "v1/completions"})
"""What a serving process answers; adapter calls are the reconciler's alone."""

_OPENAI = paths.GATEWAY_OPENAI.replace("/{uri}", "")
_BY_MODEL = paths.GATEWAY_MODEL.replace("{uri}", "{uri:path}")
_BY_PROVIDER = paths.GATEWAY_PROVIDER.replace("{uri}", "{uri:path}")


@router.get(_OPENAI + "/v1/models")
async def list_served(workspace: str, house: House) -> GatewayModels:
    """Every model and adapter that is served now."""
    return await house.routing.models(workspace)


@router.get(_OPENAI + "/v1/models/{name:path}")
async def get_served(workspace: str, name: str, house: House) -> GatewayModel:
    """One of them."""
    wanted = name if "/" in name else f"{workspace}/{name}"
    for model in (await house.routing.models(workspace)).data:
        if model.id == wanted:
            return model
    raise NotFound(f"No model named '{wanted}' is served")


@router.post(_OPENAI + "/{uri:path}")
async def by_body(workspace: str, uri: str, request: Request, house: House) -> Response:
    """Completions by the model that the body names."""
    body = await _body(request)
    return await _pass_on(house, await house.routing.target(workspace, _model(body)), uri, body, rename=True)


@router.post(_BY_MODEL)
async def by_model(workspace: str, name: str, uri: str, request: Request, house: House) -> Response:
    """Completions by the model in the path."""
    body = await _body(request)
    return await _pass_on(house, await house.routing.target(workspace, name), uri, body, rename=True)


@router.post(_BY_PROVIDER)
async def by_provider(workspace: str, name: str, uri: str, request: Request, house: House) -> Response:
    """Completions by one deployment."""
    body = await _body(request)
    target = await house.routing.target(workspace, _model(body), provider=name)
    return await _pass_on(house, target, uri, body, rename=False)


@router.get(paths.GATEWAY_PROVIDER_READY)
async def provider_ready(workspace: str, name: str, house: House) -> dict[str, Any]:
    """Whether a deployment answers."""
    deployment = await house.routing.deployment(workspace, name)
    return {"ready": True, "provider": str(deployment.ref), "host_url": f"http://127.0.0.1:{deployment.port}"}


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise BadRequest(f"Invalid request body: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("Invalid request body: must be a JSON object")
    return body


def _model(body: dict[str, Any]) -> str:
    if not isinstance(body.get("model"), str):
        raise BadRequest("Could not extract model from openai request: 'model'")
    return str(body["model"])


async def _pass_on(house: House, target: Target, uri: str, body: dict[str, Any], *, rename: bool) -> Response:
    """Send the request to its process and the answer back, whole or as a stream.

    With `rename` the answer calls the model by its `workspace/name`, else as the caller did.
    """
    if uri not in SERVED:
        raise NotFound(f"'{uri}' is not served; there are {', '.join(sorted(SERVED))}")
    shown = target.shown_id if rename else _model(body)
    request = house.http.build_request(
        "POST",
        f"{target.endpoint.url}/{uri}",
        json={**body, "model": target.served_id},
        headers={**target.endpoint.headers, HEADER: REQUEST_ID.get()},
    )
    try:
        answer = await house.http.send(request, stream=True)
    except httpx.HTTPError as error:
        raise Upstream(f"Backend networking error: {error}") from None
    if answer.is_error:
        return _refusal(answer.status_code, (await answer.aread()).decode(errors="replace"))
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        return StreamingResponse(_events(answer, shown), media_type="text/event-stream")
    content = json.loads(await answer.aread())
    return Response(json.dumps({**content, "model": shown}), media_type="application/json")


def _refusal(status: int, text: str) -> Response:
    """A process's refusal in the wire's form; its 401, 403 and 404 are ours to explain, so they become 502."""
    if status in (401, 403, 404):
        raise Upstream(f"Backend returned {status}: {text}")
    return Response(json.dumps({"detail": text}), status, media_type="application/json")


async def _events(answer: httpx.Response, shown: str) -> AsyncIterator[str]:
    """The stream's events with the model's name replaced; closing it (the caller left) closes the process's side."""
    try:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                if "model" in chunk:
                    chunk["model"] = shown
                yield f"data: {json.dumps(chunk)}\n\n"
            elif line.startswith("data:"):
                yield f"{line}\n\n"
    finally:
        await answer.aclose()
