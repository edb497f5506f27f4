"""Projects over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from tunesmith.api import paths
from tunesmith.api.base import Deleted, Page, PageRequest
from tunesmith.api.projects import PROJECTS, CreateProject, Project, UpdateProject
from tunesmith.server.paging import page_request
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("projects")

Asked = Annotated[PageRequest, Depends(page_request(PROJECTS))]


@router.post(paths.PROJECTS, status_code=201)
async def create_project(workspace: str, asked: CreateProject, house: House) -> Project:
    """A new project."""
    return await house.projects.create(workspace, asked)


@router.get(paths.PROJECTS)
async def list_projects(workspace: str, asked: Asked, house: House) -> Page[Project]:
    """One page of a workspace's projects; `-` is all workspaces."""
    return await house.projects.page(workspace, asked)


@router.get(paths.PROJECT)
async def get_project(workspace: str, name: str, house: House) -> Project:
    """One project."""
    return await house.projects.get(workspace, name)


@router.put(paths.PROJECT)
async def update_project(workspace: str, name: str, asked: UpdateProject, house: House) -> Project:
    """Another description."""
    return await house.projects.update(workspace, name, asked)


@router.delete(paths.PROJECT)
async def delete_project(workspace: str, name: str, house: House) -> Deleted:
    """Forget the project; what belonged to it stays."""
    await house.projects.delete(workspace, name)
    return Deleted(message="Project deleted successfully", id=f"{workspace}/{name}")
