# Made by scripts/unasync.py from ../aio/models.py: change that file and run the script again.
"""Model entities, and the adapters trained on them."""

from __future__ import annotations

from tunesmith.api import paths
from tunesmith.api.base import JsonObject, Page
from tunesmith.api.models import Adapter, CreateModel, Model, UpdateAdapter
from tunesmith.client import wire
from tunesmith.client.sync.pages import Pages
from tunesmith.client.sync.resource import Resource
from tunesmith.client.sync.transport import Transport


class ModelAdapters(Resource):
    """`client.models.adapters`: adapters addressed through their base model."""

    def update(
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
        return self._transport.patch(Adapter, path, body)


class Models(Resource):
    """`client.models`."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        super().__init__(transport, workspace)
        self.adapters = ModelAdapters(transport, workspace)

    def create(
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
        return self._transport.post(Model, self._in(paths.MODELS, workspace), body)

    def retrieve(self, name: str, *, workspace: str | None = None, verbose: bool = False) -> Model:
        """One model with its adapters; `verbose` adds its linear layers, the modules an adapter can be put on."""
        query = {"verbose": "true"} if verbose else None
        return self._transport.get(Model, self._at(paths.MODEL, name, workspace), query)

    def list(
        self,
        *,
        workspace: str | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> Pages[Model]:
        """The workspace's models."""
        path = self._in(paths.MODELS, workspace)
        return Pages.begin(self._transport, Page[Model], path, page, page_size, sort)

    def update_adapter(
        self,
        model_name: str,
        adapter_name: str,
        *,
        workspace: str | None = None,
        enabled: bool | None = None,
        description: str | None = None,
    ) -> Adapter:
        """As `client.models.adapters.update`."""
        return self.adapters.update(
            adapter_name, model_name=model_name, workspace=workspace, enabled=enabled, description=description
        )

    def get_openai_route_base_url(self, workspace: str | None = None) -> str:
        """The `base_url` to give to an OpenAI client; it answers for every model and adapter that is served."""
        path = paths.at(paths.GATEWAY_OPENAI, workspace=workspace or self._workspace, uri="v1")
        return self._transport.base_url + path


class Adapters(Resource):
    """`client.adapters`: adapters addressed by their own name, which is unique in a workspace."""

    def retrieve(self, name: str, *, workspace: str | None = None) -> Adapter:
        """One adapter."""
        return self._transport.get(Adapter, self._at(paths.ADAPTER, name, workspace))

    def update(
        self,
        name: str,
        *,
        workspace: str | None = None,
        enabled: bool | None = None,
        description: str | None = None,
    ) -> Adapter:
        """Change an adapter; None leaves as it is. Deployments of the base serve its enabled adapters only."""
        body = wire.ask(UpdateAdapter, enabled=enabled, description=description)
        return self._transport.patch(Adapter, self._at(paths.ADAPTER, name, workspace), body)

    def list(
        self,
        *,
        workspace: str | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> Pages[Adapter]:
        """The workspace's adapters, of all models."""
        path = self._in(paths.ADAPTERS, workspace)
        return Pages.begin(self._transport, Page[Adapter], path, page, page_size, sort)
