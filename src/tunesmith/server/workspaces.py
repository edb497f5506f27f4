"""Workspaces and their members over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query

from tunesmith.api import paths
from tunesmith.api.base import Deleted, Items, Page, PageRequest
from tunesmith.api.workspaces import (
    WORKSPACES,
    AddMember,
    CreateWorkspace,
    Member,
    UpdateMember,
    UpdateWorkspace,
    Workspace,
)
from tunesmith.server.paging import page_request
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("workspaces")

Asked = Annotated[PageRequest, Depends(page_request(WORKSPACES))]
Waiting = Annotated[bool, Query(alias="wait_role_propagation", description="Without effect: roles hold at once.")]
Principal = Annotated[str, Path(min_length=1, max_length=255)]

MEMBER = paths.MEMBER.replace("{principal}", "{principal:path}")


@router.post(paths.WORKSPACES, status_code=201)
async def create_workspace(asked: CreateWorkspace, house: House, _wait: Waiting = False) -> Workspace:
    """A new workspace."""
    return await house.workspaces.create(asked)


@router.get(paths.WORKSPACES)
async def list_workspaces(asked: Asked, house: House) -> Page[Workspace]:
    """One page of workspaces."""
    return await house.workspaces.page(asked)


@router.get(paths.WORKSPACE)
async def get_workspace(name: str, house: House) -> Workspace:
    """One workspace."""
    return await house.workspaces.get(name)


@router.put(paths.WORKSPACE)
async def update_workspace(name: str, asked: UpdateWorkspace, house: House) -> Workspace:
    """Another description."""
    return await house.workspaces.update(name, asked)


@router.delete(paths.WORKSPACE)
async def delete_workspace(name: str, house: House) -> Deleted:
    """Hide a workspace at once, and delete it with everything in it as soon as what runs there has ended."""
    await house.workspaces.delete(name)
    return Deleted(message="Workspace marked for deletion", id=name)


@router.get(paths.MEMBERS)
async def list_members(workspace: str, house: House) -> Items[Member]:
    """Who may work in a workspace."""
    return Items[Member](data=await house.workspaces.members(workspace))


@router.post(paths.MEMBERS, status_code=201)
async def add_member(workspace: str, asked: AddMember, house: House, _wait: Waiting = False) -> Member:
    """A new member."""
    return await house.workspaces.add_member(workspace, asked)


@router.put(MEMBER)
async def put_member(
    workspace: str, principal: Principal, asked: UpdateMember, house: House, _wait: Waiting = False
) -> Member:
    """Other roles for a member, or a new member."""
    return await house.workspaces.put_member(workspace, principal, asked)


@router.delete(MEMBER)
async def remove_member(workspace: str, principal: Principal, house: House, _wait: Waiting = False) -> Deleted:
    """Not a member any more."""
    await house.workspaces.remove_member(workspace, principal)
    return Deleted(message=f"Member removed from workspace '{workspace}'", id=principal)
