"""Deployment configs, and the serving processes made from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from tunesmith.api import paths
from tunesmith.api.base import JsonObject
from tunesmith.api.deployments import (
    CreateDeployment,
    CreateDeploymentConfig,
    DeploymentConfig,
    DeploymentStatus,
    Executor,
    ModelDeployment,
    ServedModel,
)
from tunesmith.client import wire
from tunesmith.client.aio.gateway import AsyncProviderRoute
from tunesmith.client.aio.resource import AsyncResource
from tunesmith.client.errors import DeploymentFailed, NotFoundError, WaitTimeoutError

POLL_SECONDS = 1.0
START_SECONDS = 600.0


class AsyncDeploymentConfigs(AsyncResource):
    """`client.inference.deployment_configs`."""

    async def create(
        self,
        name: str,
        *,
        model_spec: ServedModel | JsonObject,
        executor_config: Executor | JsonObject,
        engine: Literal["nim"] = "nim",
        workspace: str | None = None,
        description: str | None = None,
        project: str | None = None,
        model_entity_id: str | None = None,
    ) -> DeploymentConfig:
        """A recipe for deployments: which model, on what, with or without its adapters."""
        path, name = self._new(paths.DEPLOYMENT_CONFIGS, name, workspace)
        body = wire.ask(
            CreateDeploymentConfig,
            name=name,
            engine=engine,
            model_spec=model_spec,
            executor_config=executor_config,
            description=description,
            project=project,
            model_entity_id=model_entity_id,
        )
        return await self._transport.post(DeploymentConfig, path, body)

    async def retrieve(self, name: str, *, workspace: str | None = None) -> DeploymentConfig:
        """One config."""
        return await self._transport.get(DeploymentConfig, self._at(paths.DEPLOYMENT_CONFIG, name, workspace))

    async def delete(self, name: str, *, workspace: str | None = None) -> None:
        """Remove a config; ConflictError while a deployment is made from it."""
        await self._transport.remove(self._at(paths.DEPLOYMENT_CONFIG, name, workspace))


class AsyncDeployments(AsyncResource):
    """`client.inference.deployments`."""

    async def create(
        self, name: str, *, config: str, workspace: str | None = None, project: str | None = None
    ) -> ModelDeployment:
        """Start to serve what `config` (`name` or `workspace/name`) says."""
        path, name = self._new(paths.DEPLOYMENTS, name, workspace)
        body = wire.ask(CreateDeployment, name=name, config=config, project=project)
        return await self._transport.post(ModelDeployment, path, body)

    async def retrieve(self, name: str, *, workspace: str | None = None) -> ModelDeployment:
        """One deployment, and how it is doing."""
        return await self._transport.get(ModelDeployment, self._at(paths.DEPLOYMENT, name, workspace))

    async def delete(self, name: str, *, workspace: str | None = None) -> None:
        """Stop serving; `wait(name, until="DELETED")` waits until the process is gone."""
        await self._transport.remove(self._at(paths.DEPLOYMENT, name, workspace))

    async def wait(
        self,
        name: str,
        *,
        until: Literal["READY", "DELETED"] = "READY",
        workspace: str | None = None,
        on_status: Callable[[ModelDeployment], None] | None = None,
        timeout: float = START_SECONDS,  # noqa: ASYNC109 one word for both clients
        interval: float = POLL_SECONDS,
    ) -> ModelDeployment | None:
        """Ask until the deployment is READY and the gateway knows it, or until it is gone (then None, once forgotten).

        `timeout` and `interval` are seconds. DeploymentFailed if it goes to ERROR, WaitTimeoutError after `timeout`.
        """
        deadline = time.monotonic() + timeout
        seen: ModelDeployment | None = None
        while True:
            try:
                seen = await self.retrieve(name, workspace=workspace)
            except NotFoundError:
                if until == "DELETED":
                    return None
                raise
            if on_status:
                on_status(seen)
            if seen.status == until and (until == "DELETED" or await self._routed(name, workspace)):
                return seen
            if seen.status == DeploymentStatus.ERROR and until == "READY":
                raise DeploymentFailed(f"deployment '{name}' failed: {seen.status_message}")
            if time.monotonic() >= deadline:
                raise WaitTimeoutError(
                    f"deployment '{name}' is {seen.status}, not {until}, after {timeout:g} s: {seen.status_message}"
                )
            await self._transport.sleep(interval)

    async def _routed(self, name: str, workspace: str | None) -> bool:
        """Whether the gateway would send requests there."""
        try:
            await AsyncProviderRoute(self._transport, self._workspace).ready(name, workspace=workspace)
        except NotFoundError:
            return False
        return True
