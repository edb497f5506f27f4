"""Projects on the wire."""

from __future__ import annotations

from pydantic import ConfigDict

from tunesmith.api.base import Listing, Request, Resource, Timestamp
from tunesmith.api.workspaces import Description, StrictName

PROJECTS = Listing()


class Project(Resource):
    """A label for things in a workspace that belong together."""

    id: str
    name: str
    workspace: str
    description: str | None = None
    created_at: Timestamp
    updated_at: Timestamp


class CreateProject(Request):
    """A new project."""

    model_config = ConfigDict(regex_engine="python-re")

    name: StrictName
    description: Description | None = None


class UpdateProject(Request):
    """A change to a project."""

    description: Description | None = None
