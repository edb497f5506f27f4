"""Workspaces on the wire."""

from __future__ import annotations

from tunesmith.api.base import Resource, Timestamp


class Workspace(Resource):
    """A boundary around filesets, models, jobs and deployments."""

    id: str
    name: str
    description: str | None = None
    created_at: Timestamp
    created_by: str | None = None
    updated_at: Timestamp
    updated_by: str | None = None
