"""Secrets over HTTP: a value goes in, and comes out in no answer. `errors` repeats nothing that was sent to here."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from tunesmith.api import paths
from tunesmith.api.base import Page, PageRequest
from tunesmith.api.secrets import SECRETS, CreateSecret, Rotation, Secret, UpdateSecret
from tunesmith.server.paging import page_request
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("secrets")

Asked = Annotated[PageRequest, Depends(page_request(SECRETS))]


@router.post(paths.SECRETS, status_code=201)
async def create_secret(workspace: str, asked: CreateSecret, house: House) -> Secret:
    """A new secret."""
    return await house.secrets.create(workspace, asked)


@router.get(paths.SECRETS, response_model_exclude_none=True)
async def list_secrets(workspace: str, asked: Asked, house: House) -> Page[Secret]:
    """One page of a workspace's secrets, without their values. The wire has no `sort` in this list."""
    page = await house.secrets.page(workspace, asked)
    return page.model_copy(update={"sort": None})


@router.get(paths.SECRET)
async def get_secret(workspace: str, name: str, house: House) -> Secret:
    """That there is such a secret, without its value."""
    return await house.secrets.get(workspace, name)


@router.patch(paths.SECRET)
async def update_secret(workspace: str, name: str, asked: UpdateSecret, house: House) -> Secret:
    """Another value, description or project."""
    return await house.secrets.update(workspace, name, asked)


@router.delete(paths.SECRET, status_code=204)
async def delete_secret(workspace: str, name: str, house: House) -> None:
    """Forget a secret."""
    await house.secrets.delete(workspace, name)


@router.get(paths.SECRET_ACCESS, status_code=403, response_model=None)
async def access_secret(workspace: str, name: str, house: House) -> None:
    """Refused with the reason, as long as there is no authentication."""
    await house.secrets.access(workspace, name)


@router.post(paths.ROTATE_KEYS, status_code=202)
async def rotate_keys(house: House) -> Rotation:
    """Encrypt every secret with a new key and forget the old one."""
    return await house.secrets.rotate()
