"""Deployment configs and deployments over HTTP."""

from __future__ import annotations

from tunesmith.api import paths
from tunesmith.api.deployments import CreateDeployment, CreateDeploymentConfig, DeploymentConfig, ModelDeployment
from tunesmith.server.routes import routes_of
from tunesmith.server.services import House

router = routes_of("deployments")


@router.post(paths.DEPLOYMENT_CONFIGS, status_code=201)
async def create_deployment_config(workspace: str, asked: CreateDeploymentConfig, house: House) -> DeploymentConfig:
    """A new recipe for deployments."""
    return await house.deployments.create_config(workspace, asked)


@router.get(paths.DEPLOYMENT_CONFIG)
async def get_deployment_config(workspace: str, name: str, house: House) -> DeploymentConfig:
    """One recipe."""
    return await house.deployments.get_config(workspace, name)


@router.delete(paths.DEPLOYMENT_CONFIG, status_code=204)
async def delete_deployment_config(workspace: str, name: str, house: House) -> None:
    """Forget a recipe that no deployment uses."""
    await house.deployments.delete_config(workspace, name)


@router.post(paths.DEPLOYMENTS, status_code=201)
async def create_deployment(workspace: str, asked: CreateDeployment, house: House) -> ModelDeployment:
    """Start a serving process."""
    return await house.deployments.deploy(workspace, asked)


@router.get(paths.DEPLOYMENT)
async def get_deployment(workspace: str, name: str, house: House) -> ModelDeployment:
    """One deployment and its status."""
    return await house.deployments.get(workspace, name)


@router.delete(paths.DEPLOYMENT, status_code=202)
async def delete_deployment(workspace: str, name: str, house: House) -> None:
    """Stop a serving process."""
    await house.deployments.delete(workspace, name)
