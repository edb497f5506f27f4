"""Model entities over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Response

from tunesmith.api import paths
from tunesmith.api.base import Page, PageRequest
from tunesmith.api.models import MODELS, CreateModel, Model, UpdateModel
from tunesmith.server.answers import answer
from tunesmith.server.paging import page_request
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("models")

Asked = Annotated[PageRequest, Depends(page_request(MODELS, "verbose"))]
Verbose = Annotated[bool, Query(description="Whether `spec.linear_layers` is filled in.")]


@router.post(paths.MODELS, status_code=201, response_model=Model)
async def create_model(workspace: str, asked: CreateModel, house: House) -> Response:
    """A new model entity; its spec is read from the checkpoint a moment later."""
    return answer(await house.models.create(workspace, asked), 201)


@router.get(paths.MODELS, response_model=Page[Model])
async def list_models(workspace: str, asked: Asked, house: House, verbose: Verbose = False) -> Response:
    """One page of a workspace's models."""
    return answer(await house.models.page(workspace, asked, verbose), exclude_none=True)


@router.get(paths.MODEL, response_model=Model)
async def get_model(workspace: str, name: str, house: House, verbose: Verbose = False) -> Response:
    """One model with its adapters."""
    return answer(await house.models.get(workspace, name, verbose))


@router.patch(paths.MODEL, response_model=Model)
async def update_model(
    workspace: str, name: str, asked: UpdateModel, house: House, verbose: Verbose = False
) -> Response:
    """Change what is given; a new fileset is read again."""
    return answer(await house.models.update(workspace, name, asked, verbose))


@router.delete(paths.MODEL, status_code=204)
async def delete_model(workspace: str, name: str, house: House) -> None:
    """Delete a model and its adapters; their filesets stay."""
    await house.models.delete(workspace, name)
