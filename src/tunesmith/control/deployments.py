"""Deployments: the verbs, and the reconciler that makes what runs equal to what is wanted.

Observed state is asked for, never logged: is the process alive, is it healthy, which adapters does it serve. An adapter
is served under a name that holds the digest of its bytes, so a changed adapter is another adapter and cannot be stale.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.api.deployments import (
    CreateDeployment,
    CreateDeploymentConfig,
    DeploymentConfig,
    DeploymentStatus,
    ModelDeployment,
)
from tunesmith.control.contents import Contents
from tunesmith.control.fetching import Fetching
from tunesmith.control.launch import local
from tunesmith.control.launch.local import Identity
from tunesmith.control.runs import recorded
from tunesmith.control.serving import Endpoint, ServingClient
from tunesmith.errors import BadRequest, EngineError, Invalid, NotFound, TunesmithError
from tunesmith.handoff.deployment import DEPLOYMENT_FILE, SERVING_FILE, TOKEN_VARIABLE, Deployment, Serving
from tunesmith.handoff.inputs import MODEL
from tunesmith.refs import Ref
from tunesmith.store.adapters import ServableAdapter
from tunesmith.store.blobs import Blobs
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database, Tx
from tunesmith.store.deployments import StoredDeployment
from tunesmith.store.filesets import Snapshot

log = logging.getLogger(__name__)

MAX_BATCH = 16
"""Requests answered together; more gains little on two cores and delays the first."""
STARTS_IN_A_ROW = 3
"""Serving processes that may die before they are ready until the deployment is an ERROR."""
STOP_SECONDS = 10.0
FETCH_AGAIN_SECONDS = 60.0
"""After a remote adapter was asked for in vain, or while it is still on its way; asking twice joins the same fetch."""

Status = DeploymentStatus


class DeploymentService:
    """The verbs of deployment configs and deployments."""

    def __init__(self, database: Database, changed: Callable[[], None]) -> None:
        self.database = database
        self._changed = changed

    async def create_config(self, workspace: str, asked: CreateDeploymentConfig) -> DeploymentConfig:
        """A new recipe; the model entity is filled in where it exists."""
        return await self.database.write(create_config, workspace, asked)

    async def get_config(self, workspace: str, name: str) -> DeploymentConfig:
        """The config; NotFound without it."""
        return await self.database.read(lambda tx: tx.deployments.get_config(workspace, name))

    async def delete_config(self, workspace: str, name: str) -> None:
        """Forget a config that no deployment uses."""
        await self.database.write(lambda tx: tx.deployments.delete_config(workspace, name))

    async def deploy(self, workspace: str, asked: CreateDeployment) -> ModelDeployment:
        """A new serving process; Invalid names what its config lacks."""
        deployment = await self.database.write(deploy, workspace, asked)
        self._changed()
        return deployment

    async def get(self, workspace: str, name: str) -> ModelDeployment:
        """The deployment; NotFound without it."""
        return await self.database.read(lambda tx: tx.deployments.get(workspace, name))

    async def delete(self, workspace: str, name: str) -> None:
        """Stop its process; the record is gone when the process is."""
        await self.database.write(delete, Ref(workspace, name))
        self._changed()


def create_config(tx: Tx, workspace: str, asked: CreateDeploymentConfig) -> DeploymentConfig:
    """One transaction: which model is meant, then the config."""
    wanted = asked.model_entity_id or asked.model_spec.model_name
    model = None
    if wanted:
        model = Ref.parse(wanted, asked.model_spec.model_namespace or workspace, "model_spec.model_name")
        if tx.models.find_row(model.workspace, model.name) is None:
            model = None
    return tx.deployments.create_config(workspace, asked, model)


def deploy(tx: Tx, workspace: str, asked: CreateDeployment) -> ModelDeployment:
    """One transaction: the config must exist and name a model that can be served, then the deployment."""
    named = Ref.parse(asked.config, workspace, "config")
    try:
        config = tx.deployments.get_config(named.workspace, named.name)
    except NotFound:
        raise BadRequest(f"config: Deployment config '{named}' does not exist") from None
    if config.model_entity_id is None:
        raise Invalid(
            f"config: '{named}' names no model entity that existed when it was made; create it again with "
            "model_entity_id or model_spec.model_name"
        )
    model = Ref.unchecked(config.model_entity_id)
    known = tx.models.row(model.workspace, model.name)
    if known["fileset_ref"] is None:
        raise Invalid(f"config: model '{model}' has no fileset with a checkpoint to serve; give it one first")
    if known["spec_status"] == "failed":
        raise Invalid(f"config: the checkpoint of model '{model}' cannot be read: {known['spec_error']}")
    return tx.deployments.create(Ref(workspace, asked.name), config, model, asked.project)


def delete(tx: Tx, ref: Ref) -> bool:
    """One transaction: mark it, the reconciler does the rest; whether it was not marked before."""
    stored = tx.deployments.stored(ref)
    return tx.deployments.move(
        stored.id,
        Status.DELETING,
        "Stopping",
        allowed_from=[Status.CREATED, Status.PENDING, Status.READY, Status.ERROR],
    )


@dataclass(frozen=True, slots=True)
class Changes:
    """What has to happen so that a process serves what it should."""

    load: tuple[ServableAdapter, ...]
    unload: tuple[str, ...]


def decide(desired: list[ServableAdapter], observed: set[str], refused: set[str]) -> Changes:
    """Adapters that are missing and were not refused before, and names that nobody wants any more. Pure."""
    wanted = {adapter.served_name for adapter in desired}
    return Changes(
        load=tuple(each for each in desired if each.served_name not in observed | refused),
        unload=tuple(sorted(observed - wanted)),
    )


class Reconciler:
    """Takes turns with deployments."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        contents: Contents,
        data_dir: DataDir,
        client: ServingClient,
        fetching: Fetching,
    ) -> None:
        self.database = database
        self.blobs = blobs
        self.contents = contents
        self.data_dir = data_dir
        self.client = client
        self.fetching = fetching
        self.loaded: dict[str, set[str]] = {}
        """By deployment: the adapters it served when it was last asked."""
        self._refused: dict[str, dict[str, str]] = {}
        """By deployment: adapters that its process would not load, and why."""
        self._failures: dict[str, int] = {}
        """By deployment: processes that died in a row."""
        self._asked_for: dict[str, float] = {}
        """By fileset of an adapter that is not here: when its bytes were last asked for."""

    async def all(self) -> list[StoredDeployment]:
        """The deployments to take a turn with."""
        return await self.database.read(lambda tx: tx.deployments.all())

    async def turn(self, deployment: StoredDeployment) -> bool:
        """Do for one deployment what can be done now; whether something moved."""
        match deployment.status:
            case Status.CREATED:
                return await self._begin(deployment)
            case Status.PENDING:
                return await self._bring_up(deployment)
            case Status.READY:
                return await self._keep_up(deployment)
            case Status.DELETING:
                return await self._take_down(deployment)
            case _:
                return False

    def endpoint(self, deployment: StoredDeployment) -> Endpoint:
        """Where a READY deployment answers."""
        assert deployment.port is not None
        return Endpoint(deployment.port, self._token(deployment))

    async def stop_all(self) -> None:
        """The server goes: end every serving process; the next server starts them again."""
        for deployment in await self.all():
            if identity := self._found(deployment):
                await local.stop(identity, STOP_SECONDS + 5)
            await self._move(deployment, Status.CREATED, "The server was stopped", [Status.PENDING, Status.READY])

    # -- the states ------------------------------------------------------------------------------------------------

    async def _begin(self, deployment: StoredDeployment) -> bool:
        """CREATED: lay out the directory and count a new attempt; its process is started in PENDING."""
        known = await self.database.read(lambda tx: tx.models.row(deployment.model.workspace, deployment.model.name))
        if known["spec_status"] == "pending":  # its chat template is not known yet
            return False
        if known["spec_status"] == "failed":
            why = f"The checkpoint of {deployment.model} cannot be read: {known['spec_error']}"
            return await self._move(deployment, Status.ERROR, why, [Status.CREATED])
        base, chat_template = await self.database.read(_inputs, deployment)
        try:
            brought = await self.fetching.look(deployment.id, {"model": base})
        except (TunesmithError, OSError) as error:
            why = f"The checkpoint of {deployment.model} cannot be fetched: {error}"
            return await self._move(deployment, Status.ERROR, why, [Status.CREATED])
        if brought is None:
            if news := self.fetching.news(deployment.id):
                message = f"Fetching {news['fileset']}: {news['progress_pct']}% of {news['total_size']:,} bytes"
                await self.database.write(lambda tx: tx.deployments.set(deployment.id, status_message=message))
            return False
        await asyncio.to_thread(self._write, deployment, brought["model"], chat_template)
        return await self._move(
            deployment,
            Status.PENDING,
            f"Loading {deployment.model}",
            [Status.CREATED],
            attempt=deployment.attempt + 1,
            keeper=None,
            port=None,
        )

    async def _bring_up(self, deployment: StoredDeployment) -> bool:
        """PENDING: start the process unless it runs, and wait until it is healthy."""
        identity = self._found(deployment)
        if identity is None:
            identity = await self._start(deployment)
            await self.database.write(lambda tx: tx.deployments.set(deployment.id, keeper=recorded(identity)))
            return True
        if await asyncio.to_thread(self._ended, deployment, identity):
            return await self._died(deployment)
        serving = self._directory(deployment) / SERVING_FILE
        if not serving.exists():
            return False
        port = Serving.read(serving).port
        if not await self.client.healthy(Endpoint(port, self._token(deployment))):
            return False
        self._failures.pop(deployment.id, None)
        self._refused.pop(deployment.id, None)
        return await self._move(deployment, Status.READY, f"Serving {deployment.model}", [Status.PENDING], port=port)

    async def _keep_up(self, deployment: StoredDeployment) -> bool:
        """READY: is it alive, and does it serve the adapters that are enabled now."""
        identity = self._found(deployment)
        if identity is None or await asyncio.to_thread(self._ended, deployment, identity):
            return await self._died(deployment)
        at = self.endpoint(deployment)
        observed = await self.client.adapters(at)
        desired = await self._desired(deployment) if deployment.lora_enabled else []
        refused = self._refused.setdefault(deployment.id, {})
        changes = decide(desired, observed, set(refused))
        for name in changes.unload:
            await self.client.unload(at, name)
            await asyncio.to_thread(shutil.rmtree, self._adapter(deployment, name), ignore_errors=True)
            observed.discard(name)
        for adapter in changes.load:
            if await self._load(deployment, at, adapter, refused):
                observed.add(adapter.served_name)
        self.loaded[deployment.id] = observed
        return bool(changes.load or changes.unload)

    async def _desired(self, deployment: StoredDeployment) -> list[ServableAdapter]:
        """The adapters to serve: enabled, with their bytes here. Those of remote filesets are fetched first."""
        enabled = await self.database.read(lambda tx: tx.adapters.servable(deployment.model))
        for adapter in enabled:
            asked = self._asked_for.get(adapter.snapshot.fileset, -FETCH_AGAIN_SECONDS)
            if not adapter.fetched and time.monotonic() - asked >= FETCH_AGAIN_SECONDS:
                self._asked_for[adapter.snapshot.fileset] = time.monotonic()
                self.contents.start_bringing(adapter.snapshot)
        return [adapter for adapter in enabled if adapter.fetched]

    async def _take_down(self, deployment: StoredDeployment) -> bool:
        """DELETING: end the process, then forget the deployment."""
        await self.fetching.drop(deployment.id)
        if identity := self._found(deployment):
            await local.stop(identity, STOP_SECONDS + 5)
        await asyncio.to_thread(shutil.rmtree, self._directory(deployment), ignore_errors=True)
        await self.database.write(lambda tx: tx.deployments.forget(deployment.id))
        for memory in (self.loaded, self._refused, self._failures):
            memory.pop(deployment.id, None)
        return True

    async def _died(self, deployment: StoredDeployment) -> bool:
        """Its process is gone: try again, or give up with its last words."""
        self.loaded.pop(deployment.id, None)
        failures = self._failures[deployment.id] = self._failures.get(deployment.id, 0) + 1
        run = self._directory(deployment)
        lines = await asyncio.to_thread(local.last_lines, run, "serve", deployment.attempt, 5)
        words = " | ".join(line.text for line in lines)[-700:]
        states = [Status.PENDING, Status.READY]
        if failures < STARTS_IN_A_ROW:
            return await self._move(deployment, Status.CREATED, f"Starting again: {words}", states)
        message = f"The serving process died {failures} times: {words}"
        return await self._move(deployment, Status.ERROR, message, states)

    async def _load(
        self, deployment: StoredDeployment, at: Endpoint, adapter: ServableAdapter, refused: dict[str, str]
    ) -> bool:
        path = self._adapter(deployment, adapter.served_name)
        await asyncio.to_thread(self.blobs.link, adapter.snapshot.files, path)
        try:
            await self.client.load(at, adapter.served_name, path)
        except EngineError as error:
            refused[adapter.served_name] = error.message
            log.warning("deployment %s: adapter %s: %s", deployment.ref, adapter.ref, error.message)
            message = f"Serving {deployment.model}, but not adapter {adapter.ref}: {error.message}"[:1000]
            await self.database.write(lambda tx: tx.deployments.set(deployment.id, status_message=message))
            return False
        return True

    async def _move(
        self, deployment: StoredDeployment, to: Status, message: str, allowed_from: list[Status], **values: Any
    ) -> bool:
        def verb(tx: Tx) -> bool:
            return tx.deployments.move(deployment.id, to, message[:1000], allowed_from=allowed_from, **values)

        return await self.database.write(verb)

    # -- its directory and process ---------------------------------------------------------------------------------

    def _directory(self, deployment: StoredDeployment) -> Path:
        return self.data_dir.deployment(deployment.id)

    def _adapter(self, deployment: StoredDeployment, served_name: str) -> Path:
        return self._directory(deployment) / "adapters" / served_name

    def _token(self, deployment: StoredDeployment) -> str:
        return (self._directory(deployment) / "token").read_text("ascii")

    def _write(self, deployment: StoredDeployment, base: Snapshot, chat_template: str) -> None:
        directory = self._directory(deployment)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.blobs.link(base.files, directory / MODEL)
        for leftover in (directory / SERVING_FILE, directory / "token"):
            leftover.unlink(missing_ok=True)
        token = directory / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_urlsafe(32), "ascii")
        wanted = Deployment(
            served_model=str(deployment.model), compute="auto", chat_template=chat_template, max_batch=MAX_BATCH
        )
        wanted.write(directory / DEPLOYMENT_FILE)

    def _found(self, deployment: StoredDeployment) -> Identity | None:
        if deployment.keeper is not None:
            return Identity(**deployment.keeper)
        return local.find(self._directory(deployment), "serve", deployment.attempt)

    async def _start(self, deployment: StoredDeployment) -> Identity:
        directory = self._directory(deployment)
        return await local.start(
            directory,
            "serve",
            deployment.attempt,
            [sys.executable, "-P", "-m", "tunesmith.serve", str(directory)],
            local.engine_environment({TOKEN_VARIABLE: self._token(deployment)}),
            grace_seconds=STOP_SECONDS,
        )

    def _ended(self, deployment: StoredDeployment, identity: Identity) -> bool:
        directory = self._directory(deployment)
        if local.exit_facts(directory, "serve", deployment.attempt) is not None:
            return True
        if local.alive(identity):
            return False
        local.lost(directory, "serve", deployment.attempt, identity)
        return True


def _inputs(tx: Tx, deployment: StoredDeployment) -> tuple[Snapshot, str]:
    """The checkpoint's files, and the template that renders conversations."""
    model = tx.models.get(deployment.model.workspace, deployment.model.name)
    assert model.fileset is not None
    base = tx.filesets.snapshot(Ref.fileset(model.fileset, deployment.model.workspace))
    return base, base.chat_template or (model.spec.chat_template if model.spec else None) or ""
