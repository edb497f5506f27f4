"""Workspaces over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from tunesmith.api import paths
from tunesmith.api.base import Page, PageRequest
from tunesmith.api.workspaces import Workspace
from tunesmith.server.services import House

router = APIRouter(tags=["workspaces"])


@router.get(paths.WORKSPACES)
async def list_workspaces(asked: Annotated[PageRequest, Query()], house: House) -> Page[Workspace]:
    """One page of workspaces."""
    return await house.workspaces.page(asked)


@router.get(paths.WORKSPACE)
async def get_workspace(name: str, house: House) -> Workspace:
    """One workspace."""
    return await house.workspaces.get(name)
