"""Resources as ready answers: what our own rooms have made is not validated a second time on its way out."""

from __future__ import annotations

from fastapi import Response

from tunesmith.api.base import Resource


def answer(resource: Resource, status: int = 200, *, exclude_none: bool = False) -> Response:
    """The resource as JSON. The route's `response_model` documents the shape."""
    content = resource.model_dump_json(exclude_none=exclude_none)
    return Response(content, status, media_type="application/json")
