"""Deployment configs and deployments in the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, select, update

from tunesmith.api.deployments import (
    CreateDeploymentConfig,
    DeploymentConfig,
    DeploymentStatus,
    ModelDeployment,
    StatusChange,
)
from tunesmith.errors import Conflict
from tunesmith.refs import DEPLOYMENT_NAME_LIMIT, Ref, check_name
from tunesmith.store.ids import now
from tunesmith.store.rows import Named
from tunesmith.store.tables import deployment_configs, deployments

HISTORY_LIMIT = 100
"""Changes of status that a deployment remembers."""


@dataclass(frozen=True, slots=True)
class StoredDeployment:
    """A deployment as control sees it."""

    id: str
    ref: Ref
    model: Ref
    lora_enabled: bool
    status: DeploymentStatus
    attempt: int
    """Serving processes started so far."""
    keeper: Mapping[str, Any] | None
    port: int | None
    """Where its process listens while it is READY."""


class _Configs(Named):
    table = deployment_configs
    kind = "model-deployment-config"
    missing = "Deployment config '{workspace}/{name}' not found"
    twin = "Deployment config with workspace '{workspace}' and name '{name}' already exists"


class _Deployments(Named):
    table = deployments
    kind = "model-deployment"
    missing = "Deployment '{workspace}/{name}' not found"
    twin = "Deployment with workspace '{workspace}' and name '{name}' already exists"


class Deployments:
    """Recipes for serving processes, and the processes."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._configs = _Configs(connection)
        self._deployments = _Deployments(connection)

    # -- configs ---------------------------------------------------------------------------------------------------

    def create_config(self, workspace: str, asked: CreateDeploymentConfig, model: Ref | None) -> DeploymentConfig:
        """A new config for `model`."""
        row = self._configs.insert(
            workspace,
            check_name(asked.name),
            description=asked.description,
            project=asked.project,
            engine=asked.engine,
            model_spec=asked.model_spec.model_dump(mode="json"),
            executor_config=asked.executor_config.model_dump(mode="json"),
            model_entity_id=model and str(model),
        )
        return _config(row)

    def get_config(self, workspace: str, name: str) -> DeploymentConfig:
        """The config; NotFound without it."""
        return _config(self._configs.row(workspace, name))

    def delete_config(self, workspace: str, name: str) -> None:
        """Forget a config; Conflict while a deployment uses it."""
        row = self._configs.row(workspace, name)
        users = select(deployments.c.name).where(deployments.c.config_id == row["id"])
        if used_by := self.connection.execute(users).scalars().all():
            users_named = ", ".join(used_by)
            raise Conflict(f"Deployment config '{workspace}/{name}' is used by {users_named}; delete those first")
        self.connection.execute(delete(deployment_configs).where(deployment_configs.c.id == row["id"]))

    # -- deployments -----------------------------------------------------------------------------------------------

    def create(self, ref: Ref, config: DeploymentConfig, model: Ref, project: str | None) -> ModelDeployment:
        """A new deployment of `model`, which the reconciler will bring up."""
        row = self._deployments.insert(
            ref.workspace,
            check_name(ref.name, limit=DEPLOYMENT_NAME_LIMIT),
            project=project,
            config_id=config.id,
            model_ref=str(model),
            lora_enabled=config.model_spec.lora_enabled,
            status=DeploymentStatus.CREATED,
            status_message="Deployment created",
            status_history=[],
            attempt=0,
        )
        return self._deployment(row)

    def get(self, workspace: str, name: str) -> ModelDeployment:
        """The deployment; NotFound without it."""
        return self._deployment(self._deployments.row(workspace, name))

    def stored(self, ref: Ref) -> StoredDeployment:
        """The deployment as control sees it; NotFound without it."""
        return _stored(self._deployments.row(ref.workspace, ref.name))

    def all(self) -> list[StoredDeployment]:
        """Every deployment there is, oldest first."""
        query = select(deployments).order_by(deployments.c.created_at)
        return [_stored(row) for row in self.connection.execute(query).mappings()]

    def ready(self, model: Ref | None = None) -> list[StoredDeployment]:
        """The deployments that answer, of one model or of all."""
        query = select(deployments).where(deployments.c.status == DeploymentStatus.READY)
        if model is not None:
            query = query.where(deployments.c.model_ref == str(model))
        return [_stored(row) for row in self.connection.execute(query.order_by(deployments.c.created_at)).mappings()]

    def move(
        self,
        deployment_id: str,
        to: DeploymentStatus,
        message: str,
        *,
        allowed_from: Iterable[DeploymentStatus],
        **values: Any,
    ) -> bool:
        """The guarded move of a deployment; False when it is in none of `allowed_from` any more."""
        query = select(deployments).where(
            deployments.c.id == deployment_id, deployments.c.status.in_(list(allowed_from))
        )
        row = self.connection.execute(query).mappings().one_or_none()
        if row is None:
            return False
        at = now()
        change = {"timestamp": at.isoformat(timespec="microseconds") + "Z", "status": to, "status_message": message}
        history = [*row["status_history"], change][-HISTORY_LIMIT:]
        statement = update(deployments).where(deployments.c.id == deployment_id)
        moved = {"status": to, "status_message": message, "status_history": history, "updated_at": at}
        self.connection.execute(statement.values({**moved, **values}))
        return True

    def set(self, deployment_id: str, **values: Any) -> None:
        """Change columns that are not the deployment's status."""
        self.connection.execute(update(deployments).where(deployments.c.id == deployment_id).values(**values))

    def forget(self, deployment_id: str) -> None:
        """Take the row out, after its process is gone."""
        self.connection.execute(delete(deployments).where(deployments.c.id == deployment_id))

    def _deployment(self, row: RowMapping) -> ModelDeployment:
        config = self.connection.execute(
            select(deployment_configs.c.name).where(deployment_configs.c.id == row["config_id"])
        ).scalar_one()
        ready = row["status"] == DeploymentStatus.READY
        return ModelDeployment.model_validate(
            {
                **row,
                "entity_version": 1,
                "config": config,
                "config_version": 1,
                "status_history": [StatusChange.model_validate(change) for change in row["status_history"]],
                "model_provider_id": f"{row['workspace']}/{row['name']}" if ready else None,
            }
        )


def _config(row: RowMapping) -> DeploymentConfig:
    return DeploymentConfig.model_validate({**row, "entity_version": 1})


def _stored(row: RowMapping) -> StoredDeployment:
    return StoredDeployment(
        id=row["id"],
        ref=Ref(row["workspace"], row["name"]),
        model=Ref.unchecked(row["model_ref"]),
        lora_enabled=row["lora_enabled"],
        status=DeploymentStatus(row["status"]),
        attempt=row["attempt"],
        keeper=row["keeper"],
        port=row["port"],
    )
