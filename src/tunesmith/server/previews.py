"""Rows as a job would train on them, over HTTP."""

from __future__ import annotations

from tunesmith.api import paths
from tunesmith.api.previews import CreatePreview, Preview
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("customization")


@router.post(paths.PREVIEWS)
async def create_preview(workspace: str, asked: CreatePreview, house: House) -> Preview:
    """The first rows of a data set, rendered, cut to length, with what is trained on; nothing is stored."""
    return await house.previews.create(workspace, asked)
