# Made by scripts/unasync.py from ../aio/models.py: change that file and run the script again.
"""Model entities: checkpoints with a name, what they say about themselves, and their adapters."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from tunesmith.api import paths
from tunesmith.api.base import JsonObject, Page
from tunesmith.api.deployments import ModelDeployment
from tunesmith.api.models import (
    Adapter,
    ApiEndpoint,
    CreateModel,
    CreateModelAdapter,
    FinetuningType,
    LoraConfig,
    Model,
    ModelSpec,
    UpdateAdapter,
    UpdateModel,
)
from tunesmith.client import wire
from tunesmith.client.errors import SpecFailed, WaitTimeoutError
from tunesmith.client.sync.pages import Pages
from tunesmith.client.sync.resource import Resource
from tunesmith.client.sync.transport import Transport
from tunesmith.errors import Invalid

POLL_SECONDS = 0.5
READ_SECONDS = 600.0
"""How long `wait` waits for a checkpoint to be read unless told otherwise: a remote one's headers come over the net."""


class ModelAdapters(Resource):
    """`client.models.adapters`: adapters addressed through their base model."""

    def create(
        self,
        model_name: str,
        *,
        name: str,
        fileset: str,
        finetuning_type: FinetuningType = "lora",
        workspace: str | None = None,
        description: str | None = None,
        project: str | None = None,
        enabled: bool | None = None,
        lora_config: LoraConfig | JsonObject | None = None,
    ) -> Adapter:
        """An adapter of external weights, in a fileset as PEFT writes them; rank and alpha are read there."""
        body = wire.ask(
            CreateModelAdapter,
            name=name,
            fileset=fileset,
            finetuning_type=finetuning_type,
            description=description,
            project=project,
            enabled=enabled,
            lora_config=lora_config,
        )
        return self._transport.post(Adapter, self._at(paths.MODEL_ADAPTERS, model_name, workspace), body)

    def update(
        self,
        adapter: str,
        *,
        model_name: str,
        workspace: str | None = None,
        enabled: bool | None = None,
        description: str | None = None,
        fileset: str | None = None,
        project: str | None = None,
    ) -> Adapter:
        """Change an adapter; None leaves as it is. Deployments of the base serve its enabled adapters only."""
        body = wire.ask(UpdateAdapter, enabled=enabled, description=description, fileset=fileset, project=project)
        path = self._at(paths.MODEL_ADAPTER, model_name, workspace, adapter=adapter)
        return self._transport.patch(Adapter, path, body)

    def delete(self, adapter: str, *, model_name: str, workspace: str | None = None) -> None:
        """Remove an adapter; its fileset stays."""
        self._transport.remove(self._at(paths.MODEL_ADAPTER, model_name, workspace, adapter=adapter))


class Models(Resource):
    """`client.models`."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        super().__init__(transport, workspace)
        self.adapters = ModelAdapters(transport, workspace)

    def create(
        self,
        name: str,
        *,
        workspace: str | None = None,
        fileset: str | None = None,
        description: str | None = None,
        project: str | None = None,
        base_model: str | None = None,
        spec: ModelSpec | JsonObject | None = None,
        finetuning_type: FinetuningType | None = None,
        trust_remote_code: bool | None = None,
        api_endpoint: ApiEndpoint | JsonObject | None = None,
        backend_format: str | None = None,
        prompt: JsonObject | None = None,
        custom_fields: JsonObject | None = None,
        ownership: JsonObject | None = None,
        model_providers: builtins.list[str] | None = None,
        exist_ok: bool = False,
    ) -> Model:
        """A model entity over a fileset with a checkpoint. Its `spec`, what the checkpoint says about itself, is read
        after this call; `wait` waits for it. With `exist_ok` one of that name is returned as it is."""
        there = self._at(paths.MODEL, name, workspace) if exist_ok else None
        path, name = self._new(paths.MODELS, name, workspace)
        body = wire.ask(
            CreateModel,
            name=name,
            fileset=fileset,
            description=description,
            project=project,
            base_model=base_model,
            spec=spec,
            finetuning_type=finetuning_type,
            trust_remote_code=trust_remote_code,
            api_endpoint=api_endpoint,
            backend_format=backend_format,
            prompt=prompt,
            custom_fields=custom_fields,
            ownership=ownership,
            model_providers=model_providers,
        )
        return self._make(Model, path, body, there)

    def retrieve(self, name: str, *, workspace: str | None = None, verbose: bool = False) -> Model:
        """One model with its adapters; `verbose` adds its linear layers, the modules an adapter can be put on."""
        query = {"verbose": "true"} if verbose else None
        return self._transport.get(Model, self._at(paths.MODEL, name, workspace), query)

    def list(
        self,
        *,
        workspace: str | None = None,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
        verbose: bool = False,
    ) -> Pages[Model]:
        """The workspace's models; `verbose` as in `retrieve`."""
        more = {"verbose": "true" if verbose else None}
        path = self._in(paths.MODELS, workspace)
        return Pages.begin(self._transport, Page[Model], path, page, page_size, sort, filter, **more)

    def update(
        self,
        name: str,
        *,
        workspace: str | None = None,
        fileset: str | None = None,
        description: str | None = None,
        project: str | None = None,
        base_model: str | None = None,
        spec: ModelSpec | JsonObject | None = None,
        finetuning_type: FinetuningType | None = None,
        trust_remote_code: bool | None = None,
        api_endpoint: ApiEndpoint | JsonObject | None = None,
        backend_format: str | None = None,
        prompt: JsonObject | None = None,
        custom_fields: JsonObject | None = None,
        ownership: JsonObject | None = None,
        model_providers: builtins.list[str] | None = None,
    ) -> Model:
        """Change a model; None leaves as it is. Another fileset is read anew, as after `create`."""
        body = wire.ask(
            UpdateModel,
            fileset=fileset,
            description=description,
            project=project,
            base_model=base_model,
            spec=spec,
            finetuning_type=finetuning_type,
            trust_remote_code=trust_remote_code,
            api_endpoint=api_endpoint,
            backend_format=backend_format,
            prompt=prompt,
            custom_fields=custom_fields,
            ownership=ownership,
            model_providers=model_providers,
        )
        return self._transport.patch(Model, self._at(paths.MODEL, name, workspace), body)

    def delete(self, name: str, *, workspace: str | None = None) -> None:
        """Remove a model with its adapters; the filesets stay."""
        self._transport.remove(self._at(paths.MODEL, name, workspace))

    def wait(
        self,
        name: str,
        *,
        workspace: str | None = None,
        on_status: Callable[[Model], None] | None = None,
        timeout: float = READ_SECONDS,
        interval: float = POLL_SECONDS,
    ) -> Model:
        """Ask until the model's checkpoint has been read; a model without one is returned as it is.

        `timeout` and `interval` are seconds. SpecFailed if the checkpoint cannot be read, WaitTimeoutError after
        `timeout`; reading goes on.
        """
        deadline = time.monotonic() + timeout
        while True:
            model = self.retrieve(name, workspace=workspace)
            if on_status:
                on_status(model)
            status = model.custom_fields.get("spec_status")
            if status == "failed":
                why = model.custom_fields.get("spec_error") or "it does not say why"
                raise SpecFailed(
                    f"the checkpoint of model '{model.workspace}/{model.name}' cannot be read: {why} (the model stays, "
                    "and is read again when its fileset changes)"
                )
            if status != "pending" and (model.spec or not model.fileset):
                return model
            if time.monotonic() >= deadline:
                raise WaitTimeoutError(f"the checkpoint of model '{name}' is not read yet after {timeout:g} s")
            self._transport.sleep(interval)

    def create_adapter(
        self,
        model_name: str,
        *,
        name: str,
        fileset: str,
        finetuning_type: FinetuningType = "lora",
        workspace: str | None = None,
        description: str | None = None,
        project: str | None = None,
        enabled: bool | None = None,
        lora_config: LoraConfig | JsonObject | None = None,
    ) -> Adapter:
        """As `client.models.adapters.create`."""
        return self.adapters.create(
            model_name,
            name=name,
            fileset=fileset,
            finetuning_type=finetuning_type,
            workspace=workspace,
            description=description,
            project=project,
            enabled=enabled,
            lora_config=lora_config,
        )

    def update_adapter(
        self,
        model_name: str,
        adapter_name: str,
        *,
        workspace: str | None = None,
        enabled: bool | None = None,
        description: str | None = None,
        fileset: str | None = None,
        project: str | None = None,
    ) -> Adapter:
        """As `client.models.adapters.update`."""
        return self.adapters.update(
            adapter_name,
            model_name=model_name,
            workspace=workspace,
            enabled=enabled,
            description=description,
            fileset=fileset,
            project=project,
        )

    def get_openai_route_base_url(self, workspace: str | None = None) -> str:
        """The `base_url` to give to an OpenAI client; it answers for every model and adapter that is served."""
        path = paths.at(paths.GATEWAY_OPENAI, workspace=workspace or self._workspace, uri="v1")
        return self._transport.base_url + path

    def get_model_entity_route_openai_url(self, model_entity: Model | str) -> str:
        """The same for one model: it answers, whatever `model` a request names. A string is `name` or
        `workspace/name`."""
        return self._route(paths.GATEWAY_MODEL, model_entity)

    def get_provider_route_openai_url_for_deployment(self, deployment: ModelDeployment | str) -> str:
        """The same for one deployment, straight to its server."""
        return self._route(paths.GATEWAY_PROVIDER, deployment)

    def get_openai_client(self, workspace: str | None = None) -> Any:
        """A client of the package `openai` on `get_openai_route_base_url`; Invalid if it is not installed."""
        if find_spec("openai") is None:
            raise Invalid(
                "get_openai_client needs the package openai: install it with `pip install openai`, or ask with "
                "client.inference.chat"
            )
        kind = import_module("openai").OpenAI
        return kind(base_url=self.get_openai_route_base_url(workspace), api_key="not-needed")

    def _route(self, path: str, thing: Model | ModelDeployment | str) -> str:
        name = thing if isinstance(thing, str) else f"{thing.workspace}/{thing.name}"
        return self._transport.base_url + self._at(path, name, None, uri="v1")
