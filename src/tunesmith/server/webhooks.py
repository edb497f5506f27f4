"""Webhooks over HTTP: who is told of changes. What is told, and how it is signed, is in control/webhooks.py."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from tunesmith.api import paths
from tunesmith.api.base import Page, PageRequest
from tunesmith.api.webhooks import WEBHOOKS, CreateWebhook, Webhook
from tunesmith.server.paging import page_request
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("jobs")

Asked = Annotated[PageRequest, Depends(page_request(WEBHOOKS))]


@router.post(paths.WEBHOOKS, status_code=201)
async def create_webhook(workspace: str, asked: CreateWebhook, house: House) -> Webhook:
    """An address that is told, signed, of every change of a job's status in the workspace."""
    return await house.webhooks.create(workspace, asked)


@router.get(paths.WEBHOOKS, response_model_exclude_none=True)
async def list_webhooks(workspace: str, asked: Asked, house: House) -> Page[Webhook]:
    """One page of a workspace's webhooks."""
    return await house.webhooks.page(workspace, asked)


@router.get(paths.WEBHOOK)
async def get_webhook(workspace: str, name: str, house: House) -> Webhook:
    """One webhook."""
    return await house.webhooks.get(workspace, name)


@router.delete(paths.WEBHOOK, status_code=204)
async def delete_webhook(workspace: str, name: str, house: House) -> None:
    """Forget a webhook, and what it is still owed."""
    await house.webhooks.delete(workspace, name)
