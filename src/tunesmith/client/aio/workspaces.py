"""Workspaces, the boundaries around everything else, and who may work in them."""

from __future__ import annotations

import builtins

from tunesmith.api import paths
from tunesmith.api.base import Deleted, Items, Page
from tunesmith.api.workspaces import AddMember, CreateWorkspace, Member, Role, UpdateMember, UpdateWorkspace, Workspace
from tunesmith.client import wire
from tunesmith.client.aio.pages import AsyncPages
from tunesmith.client.aio.resource import AsyncResource
from tunesmith.client.aio.transport import AsyncTransport


class AsyncMembers(AsyncResource):
    """`client.workspaces.members`. Roles are Viewer, Editor and Admin."""

    async def create(
        self, principal: str, *, roles: builtins.list[Role] | None = None, workspace: str | None = None
    ) -> Member:
        """Let somebody in, as Editor unless `roles` says otherwise."""
        body = wire.ask(AddMember, principal=principal, roles=roles)
        return await self._transport.post(Member, self._in(paths.MEMBERS, workspace), body)

    async def list(self, *, workspace: str | None = None) -> Items[Member]:
        """All members of the workspace."""
        return await self._transport.get(Items[Member], self._in(paths.MEMBERS, workspace))

    async def update(self, principal_id: str, *, roles: builtins.list[Role], workspace: str | None = None) -> Member:
        """Replace what somebody may do; who was no member becomes one."""
        body = wire.ask(UpdateMember, roles=roles)
        return await self._transport.put(Member, self._member(principal_id, workspace), body)

    async def delete(self, principal_id: str, *, workspace: str | None = None) -> Deleted:
        """Take somebody out; ConflictError for the last Admin."""
        return await self._transport.delete(self._member(principal_id, workspace), Deleted)

    def _member(self, principal: str, workspace: str | None) -> str:
        part = self._part("principal", principal)
        return paths.at(paths.MEMBER, workspace=workspace or self._workspace, principal=part)


class AsyncWorkspaces(AsyncResource):
    """`client.workspaces`."""

    def __init__(self, transport: AsyncTransport, workspace: str) -> None:
        super().__init__(transport, workspace)
        self.members = AsyncMembers(transport, workspace)

    async def create(self, name: str, *, description: str | None = None, exist_ok: bool = False) -> Workspace:
        """A new workspace. With `exist_ok` one of that name is returned as it is, where there is one.

        ConflictError also while a workspace of that name is still being cleared away.
        """
        body = wire.ask(CreateWorkspace, name=name, description=description)
        there = self._workspace_at(name) if exist_ok else None
        return await self._make(Workspace, paths.WORKSPACES, body, there)

    async def retrieve(self, name: str) -> Workspace:
        """One workspace."""
        return await self._transport.get(Workspace, self._workspace_at(name))

    async def list(
        self,
        *,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> AsyncPages[Workspace]:
        """All workspaces."""
        return await AsyncPages.begin(self._transport, Page[Workspace], paths.WORKSPACES, page, page_size, sort, filter)

    async def update(self, name: str, *, description: str | None = None) -> Workspace:
        """Change a workspace; None leaves as it is."""
        body = wire.ask(UpdateWorkspace, description=description)
        return await self._transport.put(Workspace, self._workspace_at(name), body)

    async def delete(self, name: str) -> Deleted:
        """Remove a workspace with all that is in it: it is gone at once, its contents a little later."""
        return await self._transport.delete(self._workspace_at(name), Deleted)

    def _workspace_at(self, name: str) -> str:
        return paths.at(paths.WORKSPACE, name=self._part("name", name))
