"""Workspaces and their members on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, FailFast, Field, PlainSerializer, StringConstraints

from tunesmith.api.base import Listing, Request, Resource, Timestamp
from tunesmith.refs import NAME_PATTERN

WORKSPACES = Listing()

StrictName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""A name that is held to the store's rule at once, as workspaces' and projects' are."""

Description = Annotated[str, Field(max_length=1000)]

Role = Literal["Viewer", "Editor", "Admin"]

Moment = Annotated[datetime, PlainSerializer(lambda at: at.isoformat(timespec="microseconds") + "Z", return_type=str)]
"""UTC with microseconds and a Z: members and deployment histories have it so."""


class Workspace(Resource):
    """A boundary around filesets, models, jobs and deployments."""

    id: str
    name: str
    description: str | None = None
    created_at: Timestamp
    created_by: str | None = None
    updated_at: Timestamp
    updated_by: str | None = None


class CreateWorkspace(Request):
    """A new workspace."""

    model_config = ConfigDict(regex_engine="python-re")

    name: StrictName
    description: Description | None = None


class UpdateWorkspace(Request):
    """A change to a workspace."""

    description: Description | None = None


class Member(Resource):
    """Somebody who may work in a workspace, once there is authentication."""

    principal: str
    roles: list[Role]
    granted_at: Moment | None = None
    granted_by: str | None = None


class AddMember(Request):
    """A new member of a workspace."""

    principal: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    roles: Annotated[list[Role], Field(min_length=1), FailFast()] = ["Editor"]


class UpdateMember(Request):
    """What a member may do from now on."""

    roles: Annotated[list[Role], Field(min_length=1), FailFast()]
