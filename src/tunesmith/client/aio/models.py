"""Model entities, and the adapters trained on them."""

from __future__ import annotations

from tunesmith.api import paths
from tunesmith.api.base import JsonObject, Page
from tunesmith.api.models import Adapter, CreateModel, Model, UpdateAdapter
from tunesmith.client import wire
from tunesmith.client.aio.pages import AsyncPages
from tunesmith.client.aio.resource import AsyncResource
from tunesmith.client.aio.transport import AsyncTransport


class AsyncModelAdapters(AsyncResource):
    """`client.models.adapters`: adapters addressed through their base model."""

    async def update(
        self,
        adapter_name: str,
        *,
        model_name: str,
        workspace: str | None = None,
        enabled: bool | None = None,
        description: str | None = None,
    ) -> Adapter:
        """Change an adapter; None leaves as it is. Deployments of the base serve its enabled adapters only."""
        body = wire.ask(UpdateAdapter, enabled=enabled, description=description)
        path = self._at(paths.MODEL_ADAPTER, model_name, workspace, adapter=adapter_name)
        return await self._transport.patch(Adapter, path, body)


class AsyncModels(AsyncResource):
    """`client.models`."""

    def __init__(self, transport: AsyncTransport, workspace: str) -> None:
        super().__init__(transport, workspace)
        self.adapters = AsyncModelAdapters(transport, workspace)

    async def create(
        self,
        name: str,
        *,
        fileset: str,
        workspace: str | None = None,
        description: str | None = None,
        custom_fields: JsonObject | None = None,
    ) -> Model:
        """A model entity over a fileset with a checkpoint. Its `spec` says what the checkpoint is."""
        body = wire.ask(CreateModel, name=name, fileset=fileset, description=description, custom_fields=custom_fields)
        return await self._transport.post(Model, self._in(paths.MODELS, workspace), body)

    async def retrieve(self, name: str, *, workspace: str | None = None, verbose: bool = False) -> Model:
        """One model with its adapters; `verbose` adds its linear layers, the modules an adapter can be put on."""
        query = {"verbose": "true"} if verbose else None
        return await self._transport.get(Model, self._at(paths.MODEL, name, workspace), query)

    async def list(
        self,
        *,
        workspace: str | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> AsyncPages[Model]:
        """The workspace's models."""
        path = self._in(paths.MODELS, workspace)
        return await AsyncPages.begin(self._transport, Page[Model], path, page, page_size, sort)

    async def update_adapter(
        self,
        model_name: str,
        adapter_name: str,
        *,
        workspace: str | None = None,
        enabled: bool | None = None,
        description: str | None = None,
    ) -> Adapter:
        """As `client.models.adapters.update`."""
        return await self.adapters.update(
            adapter_name, model_name=model_name, workspace=workspace, enabled=enabled, description=description
        )

    def get_openai_route_base_url(self, workspace: str | None = None) -> str:
        """The `base_url` to give to an OpenAI client; it answers for every model and adapter that is served."""
        path = paths.at(paths.GATEWAY_OPENAI, workspace=workspace or self._workspace, uri="v1")
        return self._transport.base_url + path


class AsyncAdapters(AsyncResource):
    """`client.adapters`: adapters addressed by their own name, which is unique in a workspace."""

    async def retrieve(self, name: str, *, workspace: str | None = None) -> Adapter:
        """One adapter."""
        return await self._transport.get(Adapter, self._at(paths.ADAPTER, name, workspace))

    async def update(
        self,
        name: str,
        *,
        workspace: str | None = None,
        enabled: bool | None = None,
        description: str | None = None,
    ) -> Adapter:
        """Change an adapter; None leaves as it is. Deployments of the base serve its enabled adapters only."""
        body = wire.ask(UpdateAdapter, enabled=enabled, description=description)
        return await self._transport.patch(Adapter, self._at(paths.ADAPTER, name, workspace), body)

    async def list(
        self,
        *,
        workspace: str | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> AsyncPages[Adapter]:
        """The workspace's adapters, of all models."""
        path = self._in(paths.ADAPTERS, workspace)
        return await AsyncPages.begin(self._transport, Page[Adapter], path, page, page_size, sort)
