"""Adapters over HTTP, by themselves and under their model."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from tunesmith.api import paths
from tunesmith.api.base import Page, PageRequest
from tunesmith.api.models import Adapter, UpdateAdapter
from tunesmith.server.services import House

router = APIRouter(tags=["adapters"])


@router.get(paths.ADAPTERS, response_model_exclude_none=True)
async def list_adapters(workspace: str, asked: Annotated[PageRequest, Query()], house: House) -> Page[Adapter]:
    """One page of a workspace's adapters."""
    return await house.adapters.page(workspace, asked)


@router.get(paths.ADAPTER)
async def get_adapter(workspace: str, name: str, house: House) -> Adapter:
    """One adapter."""
    return await house.adapters.get(workspace, name)


@router.patch(paths.ADAPTER)
async def update_adapter(workspace: str, name: str, asked: UpdateAdapter, house: House) -> Adapter:
    """Enable, disable or describe an adapter."""
    return await house.adapters.update(workspace, name, asked)


@router.patch(paths.MODEL_ADAPTER)
async def update_model_adapter(workspace: str, name: str, adapter: str, asked: UpdateAdapter, house: House) -> Adapter:
    """The same, through the adapter's model."""
    return await house.adapters.update(workspace, adapter, asked, model=name)
