"""Which serving process answers a request, and under which id it knows the model that was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.api.deployments import GatewayModel, GatewayModels
from tunesmith.control.deployments import Reconciler
from tunesmith.control.serving import Endpoint
from tunesmith.errors import NotFound, Unavailable
from tunesmith.refs import Ref
from tunesmith.store.database import Database, Tx
from tunesmith.store.deployments import StoredDeployment

COMPOSITE = "&adapters/"
"""Between base and adapter in `workspace/base&adapters/workspace/adapter`."""


@dataclass(frozen=True, slots=True)
class Target:
    """A model where it is served."""

    endpoint: Endpoint
    served_id: str
    """The id that the serving process knows."""
    shown_id: str
    """The id that the caller sees: `workspace/name`."""


class Routing:
    """Finds the process behind a model's or an adapter's name."""

    def __init__(self, database: Database, reconciler: Reconciler) -> None:
        self.database = database
        self.reconciler = reconciler

    async def target(self, workspace: str, model: str, provider: str | None = None) -> Target:
        """The process that serves `model`, within one deployment when `provider` names it.

        `model` is `name`, `workspace/name`, `workspace--name` or the composite of base and adapter. NotFound says what
        to do; Unavailable when an adapter is on its way up.
        """
        return await self.database.read(self._find, workspace, model, provider)

    async def deployment(self, workspace: str, name: str) -> StoredDeployment:
        """The deployment of that name, when it answers; NotFound otherwise."""
        return await self.database.read(_provider, Ref(workspace, name))

    async def models(self, workspace: str) -> GatewayModels:
        """Every model and adapter that is served now, in this workspace's view."""
        return await self.database.read(self._models, workspace)

    def _find(self, tx: Tx, workspace: str, model: str, provider: str | None) -> Target:
        ref = asked_for(workspace, model)
        within = [_provider(tx, Ref(workspace, provider))] if provider is not None else None
        if tx.models.find_row(ref.workspace, ref.name) is not None:
            for deployment in within if within is not None else tx.deployments.ready(ref):
                if deployment.model == ref:
                    return Target(self.reconciler.endpoint(deployment), str(ref), str(ref))
            raise NotFound(f"Model '{ref}' is not served here: deploy it first (tunesmith deploy {ref})")
        if tx.adapters.find_row(ref.workspace, ref.name) is not None:
            return self._adapter(tx, ref, within)
        raise NotFound(
            f"No model or adapter named '{ref}' was found. See GET .../openai/-/v1/models for what is served"
        )

    def _adapter(self, tx: Tx, ref: Ref, within: list[StoredDeployment] | None) -> Target:
        adapter = tx.adapters.get(ref.workspace, ref.name)
        assert adapter.model is not None
        base = Ref.unchecked(adapter.model)
        if not adapter.enabled:
            raise NotFound(f"Adapter '{ref}' is disabled; enable it first (tunesmith adapters enable {ref.name})")
        deployments = [
            deployment
            for deployment in (within if within is not None else tx.deployments.ready(base))
            if deployment.lora_enabled and deployment.model == base
        ]
        if not deployments:
            raise NotFound(f"Adapter '{ref}' is not served: deploy its base first (tunesmith deploy {base})")
        enabled = [each for each in tx.adapters.servable(base) if each.ref == ref]
        if not enabled:
            raise NotFound(f"Adapter '{ref}' has lost its fileset '{adapter.fileset}'; give it another one")
        served = enabled[0].served_name if enabled[0].fetched else ""
        for deployment in deployments:
            if served in self.reconciler.loaded.get(deployment.id, ()):
                return Target(self.reconciler.endpoint(deployment), served, str(ref))
        raise Unavailable(f"Adapter '{ref}' is not loaded yet; see the status_message of '{deployments[0].ref}'")

    def _models(self, tx: Tx, workspace: str) -> GatewayModels:
        served: dict[str, str] = {}
        for deployment in tx.deployments.ready():
            if workspace not in (deployment.ref.workspace, deployment.model.workspace):
                continue
            served[str(deployment.model)] = deployment.model.workspace
            loaded = self.reconciler.loaded.get(deployment.id, set())
            for adapter in tx.adapters.servable(deployment.model):
                if adapter.fetched and adapter.served_name in loaded:
                    served[str(adapter.ref)] = adapter.ref.workspace
        return GatewayModels(data=[GatewayModel(id=name, owned_by=owner) for name, owner in served.items()])


def asked_for(workspace: str, model: str) -> Ref:
    """The model or adapter that a request's `model` means."""
    _, found, adapter = model.partition(COMPOSITE)
    if found:
        return Ref.parse(adapter, workspace, "model")
    owner, found, name = model.partition("--")
    if found and "/" not in model:
        return Ref.parse(f"{owner}/{name}", workspace, "model")
    return Ref.parse(model, workspace, "model")


def _provider(tx: Tx, ref: Ref) -> StoredDeployment:
    for deployment in tx.deployments.ready():
        if deployment.ref == ref:
            return deployment
    raise NotFound(f"Model provider not found for {ref}")
