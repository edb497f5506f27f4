# Made by scripts/unasync.py from ../aio/adapters.py: change that file and run the script again.
"""Adapters by their own name, which is unique in a workspace: trained weights beside a model's own."""

from __future__ import annotations

from tunesmith.api import paths
from tunesmith.api.base import JsonObject, Page
from tunesmith.api.models import Adapter, CreateAdapter, FinetuningType, LoraConfig, UpdateAdapter
from tunesmith.client import wire
from tunesmith.client.sync.pages import Pages
from tunesmith.client.sync.resource import Resource


class Adapters(Resource):
    """`client.adapters`."""

    def create(
        self,
        name: str,
        *,
        model: str,
        fileset: str,
        finetuning_type: FinetuningType = "lora",
        workspace: str | None = None,
        description: str | None = None,
        project: str | None = None,
        enabled: bool | None = None,
        lora_config: LoraConfig | JsonObject | None = None,
        exist_ok: bool = False,
    ) -> Adapter:
        """An adapter of external weights for the base `model`, in a fileset as PEFT writes them.

        Rank and alpha are read there; a `lora_config` that contradicts them is refused. With `exist_ok` an adapter of
        that name is returned as it is.
        """
        there = self._at(paths.ADAPTER, name, workspace) if exist_ok else None
        path, name = self._new(paths.ADAPTERS, name, workspace)
        body = wire.ask(
            CreateAdapter,
            name=name,
            model=model,
            fileset=fileset,
            finetuning_type=finetuning_type,
            description=description,
            project=project,
            enabled=enabled,
            lora_config=lora_config,
        )
        return self._make(Adapter, path, body, there)

    def retrieve(self, name: str, *, workspace: str | None = None) -> Adapter:
        """One adapter."""
        return self._transport.get(Adapter, self._at(paths.ADAPTER, name, workspace))

    def list(
        self,
        *,
        workspace: str | None = None,
        filter: wire.Filter | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort: str | None = None,
    ) -> Pages[Adapter]:
        """The workspace's adapters, of all models."""
        path = self._in(paths.ADAPTERS, workspace)
        return Pages.begin(self._transport, Page[Adapter], path, page, page_size, sort, filter)

    def update(
        self,
        name: str,
        *,
        workspace: str | None = None,
        enabled: bool | None = None,
        description: str | None = None,
        fileset: str | None = None,
        project: str | None = None,
    ) -> Adapter:
        """Change an adapter; None leaves as it is. Deployments of the base serve its enabled adapters only."""
        body = wire.ask(UpdateAdapter, enabled=enabled, description=description, fileset=fileset, project=project)
        return self._transport.patch(Adapter, self._at(paths.ADAPTER, name, workspace), body)

    def delete(self, name: str, *, workspace: str | None = None) -> None:
        """Remove an adapter; its fileset stays."""
        self._transport.remove(self._at(paths.ADAPTER, name, workspace))
