"""Adapters over HTTP, by themselves and under their model."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Response

from tunesmith.api import paths
from tunesmith.api.base import Page, PageRequest
from tunesmith.api.models import ADAPTERS, Adapter, CreateAdapter, CreateModelAdapter, UpdateAdapter
from tunesmith.server.answers import answer
from tunesmith.server.paging import page_request
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("adapters")

Asked = Annotated[PageRequest, Depends(page_request(ADAPTERS))]


@router.post(paths.ADAPTERS, status_code=201, response_model=Adapter)
async def create_adapter(workspace: str, asked: CreateAdapter, house: House) -> Response:
    """A new adapter of external weights."""
    return answer(await house.adapters.create(workspace, asked.model, asked), 201)


@router.get(paths.ADAPTERS, response_model=Page[Adapter])
async def list_adapters(workspace: str, asked: Asked, house: House) -> Response:
    """One page of a workspace's adapters."""
    return answer(await house.adapters.page(workspace, asked), exclude_none=True)


@router.get(paths.ADAPTER, response_model=Adapter)
async def get_adapter(workspace: str, name: str, house: House) -> Response:
    """One adapter."""
    return answer(await house.adapters.get(workspace, name))


@router.patch(paths.ADAPTER, response_model=Adapter)
async def update_adapter(workspace: str, name: str, asked: UpdateAdapter, house: House) -> Response:
    """Enable, disable or describe an adapter, or give it other weights."""
    return answer(await house.adapters.update(workspace, name, asked))


@router.delete(paths.ADAPTER, status_code=204)
async def delete_adapter(workspace: str, name: str, house: House) -> None:
    """Delete an adapter; its fileset stays."""
    await house.adapters.delete(workspace, name)


@router.post(paths.MODEL_ADAPTERS, status_code=201, response_model=Adapter)
async def create_model_adapter(workspace: str, name: str, asked: CreateModelAdapter, house: House) -> Response:
    """A new adapter of external weights, under its model."""
    return answer(await house.adapters.create(workspace, name, asked), 201)


@router.patch(paths.MODEL_ADAPTER, response_model=Adapter)
async def update_model_adapter(workspace: str, name: str, adapter: str, asked: UpdateAdapter, house: House) -> Response:
    """Change an adapter through its model."""
    return answer(await house.adapters.update(workspace, adapter, asked, model=name))


@router.delete(paths.MODEL_ADAPTER, status_code=204)
async def delete_model_adapter(workspace: str, name: str, adapter: str, house: House) -> None:
    """Delete an adapter through its model."""
    await house.adapters.delete(workspace, adapter, model=name)
