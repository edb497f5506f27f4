"""Secrets: values that the platform keeps encrypted and hands to jobs and storages, never back."""

from __future__ import annotations

from tunesmith.api import paths
from tunesmith.api.base import JsonObject, Page
from tunesmith.api.secrets import CreateSecret, Rotation, Secret, UpdateSecret
from tunesmith.client import wire
from tunesmith.client.aio.pages import AsyncPages
from tunesmith.client.aio.resource import AsyncResource


class AsyncSecrets(AsyncResource):
    """`client.secrets`."""

    async def create(
        self,
        name: str,
        *,
        value: str,
        workspace: str | None = None,
        description: str | None = None,
        project: str | None = None,
    ) -> Secret:
        """A new secret; the answer does not hold its value."""
        path, name = self._new(paths.SECRETS, name, workspace)
        body = wire.ask(CreateSecret, name=name, value=value, description=description, project=project)
        body["value"] = value  # which the shape hides from print and logs
        return await self._transport.post(Secret, path, body)

    async def retrieve(self, name: str, *, workspace: str | None = None) -> Secret:
        """That there is a secret, and since when; not its value."""
        return await self._transport.get(Secret, self._at(paths.SECRET, name, workspace))

    async def list(
        self,
        *,
        workspace: str | None = None,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> AsyncPages[Secret]:
        """The workspace's secrets, without their values."""
        path = self._in(paths.SECRETS, workspace)
        return await AsyncPages.begin(self._transport, Page[Secret], path, page, page_size, sort, filter)

    async def update(
        self,
        name: str,
        *,
        workspace: str | None = None,
        value: str | None = None,
        description: str | None = None,
        project: str | None = None,
    ) -> Secret:
        """Change a secret; None leaves as it is. Who reads it next gets the new value."""
        body = wire.ask(UpdateSecret, value=value, description=description, project=project)
        if value is not None:
            body["value"] = value
        return await self._transport.patch(Secret, self._at(paths.SECRET, name, workspace), body)

    async def delete(self, name: str, *, workspace: str | None = None) -> None:
        """Remove a secret."""
        await self._transport.remove(self._at(paths.SECRET, name, workspace))

    async def access(self, name: str, *, workspace: str | None = None) -> JsonObject:
        """A secret with its value; PermissionDeniedError as long as the platform has no authentication."""
        answer: JsonObject = wire.content(
            await self._transport.send("GET", self._at(paths.SECRET_ACCESS, name, workspace))
        )
        return answer

    async def rotate(self) -> Rotation:
        """Encrypt all secrets of all workspaces anew, under a new key."""
        return await self._transport.post(Rotation, paths.ROTATE_KEYS)
