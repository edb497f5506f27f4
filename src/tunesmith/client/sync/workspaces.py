# Made by scripts/unasync.py from ../aio/workspaces.py: change that file and run the script again.
"""Workspaces, the boundaries around everything else, and who may work in them."""

from __future__ import annotations

import builtins

from tunesmith.api import paths
from tunesmith.api.base import Deleted, Items, Page
from tunesmith.api.workspaces import AddMember, CreateWorkspace, Member, Role, UpdateMember, UpdateWorkspace, Workspace
from tunesmith.client import wire
from tunesmith.client.sync.pages import Pages
from tunesmith.client.sync.resource import Resource
from tunesmith.client.sync.transport import Transport


class Members(Resource):
    """`client.workspaces.members`. Roles are Viewer, Editor and Admin."""

    def create(
        self, principal: str, *, roles: builtins.list[Role] | None = None, workspace: str | None = None
    ) -> Member:
        """Let somebody in, as Editor unless `roles` says otherwise."""
        body = wire.ask(AddMember, principal=principal, roles=roles)
        return self._transport.post(Member, self._in(paths.MEMBERS, workspace), body)

    def list(self, *, workspace: str | None = None) -> Items[Member]:
        """All members of the workspace."""
        return self._transport.get(Items[Member], self._in(paths.MEMBERS, workspace))

    def update(self, principal_id: str, *, roles: builtins.list[Role], workspace: str | None = None) -> Member:
        """Replace what somebody may do; who was no member becomes one."""
        body = wire.ask(UpdateMember, roles=roles)
        return self._transport.put(Member, self._member(principal_id, workspace), body)

    def delete(self, principal_id: str, *, workspace: str | None = None) -> Deleted:
        """Take somebody out; ConflictError for the last Admin."""
        return self._transport.delete(self._member(principal_id, workspace), Deleted)

    def _member(self, principal: str, workspace: str | None) -> str:
        part = self._part("principal", principal)
        return paths.at(paths.MEMBER, workspace=workspace or self._workspace, principal=part)


class Workspaces(Resource):
    """`client.workspaces`."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        super().__init__(transport, workspace)
        self.members = Members(transport, workspace)

    def create(self, name: str, *, description: str | None = None, exist_ok: bool = False) -> Workspace:
        """A new workspace. With `exist_ok` one of that name is returned as it is, where there is one.

        ConflictError also while a workspace of that name is still being cleared away.
        """
        body = wire.ask(CreateWorkspace, name=name, description=description)
        there = self._workspace_at(name) if exist_ok else None
        return self._make(Workspace, paths.WORKSPACES, body, there)

    def retrieve(self, name: str) -> Workspace:
        """One workspace."""
        return self._transport.get(Workspace, self._workspace_at(name))

    def list(
        self,
        *,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> Pages[Workspace]:
        """All workspaces."""
        return Pages.begin(self._transport, Page[Workspace], paths.WORKSPACES, page, page_size, sort, filter)

    def update(self, name: str, *, description: str | None = None) -> Workspace:
        """Change a workspace; None leaves as it is."""
        body = wire.ask(UpdateWorkspace, description=description)
        return self._transport.put(Workspace, self._workspace_at(name), body)

    def delete(self, name: str) -> Deleted:
        """Remove a workspace with all that is in it: it is gone at once, its contents a little later."""
        return self._transport.delete(self._workspace_at(name), Deleted)

    def _workspace_at(self, name: str) -> str:
        return paths.at(paths.WORKSPACE, name=self._part("name", name))
