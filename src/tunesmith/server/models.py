"""Model entities over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from tunesmith.api import paths
from tunesmith.api.base import Page, PageRequest
from tunesmith.api.models import CreateModel, Model
from tunesmith.server.services import House

router = APIRouter(tags=["models"])


@router.post(paths.MODELS, status_code=201)
async def create_model(workspace: str, asked: CreateModel, house: House) -> Model:
    """A new model entity; its spec is read from the checkpoint."""
    return await house.models.create(workspace, asked)


@router.get(paths.MODELS, response_model_exclude_none=True)
async def list_models(workspace: str, asked: Annotated[PageRequest, Query()], house: House) -> Page[Model]:
    """One page of a workspace's models."""
    return await house.models.page(workspace, asked)


@router.get(paths.MODEL)
async def get_model(workspace: str, name: str, house: House, verbose: bool = False) -> Model:
    """One model with its adapters."""
    return await house.models.get(workspace, name, verbose)
