"""Secrets on the wire: their value goes in and never comes out."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints, field_validator

from tunesmith.api.base import Listing, ProjectName, Request, Resource, Timestamp
from tunesmith.api.workspaces import Description

SECRETS = Listing(page_size=10)

FIRST_LOOK = re.compile(r"[A-Za-z0-9_.-]+")

SecretRef = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+(/[a-z0-9_-]+)?$")]
"""`name` (in the workspace of whatever refers to it) or `workspace/name`."""


class Secret(Resource):
    """That there is a secret; its value stays inside."""

    name: str
    workspace: str
    description: str | None = None
    project: str | None = None
    created_at: Timestamp
    updated_at: Timestamp


class CreateSecret(Request):
    """A new secret."""

    name: str
    value: SecretStr
    """1 to 65,536 bytes in UTF-8."""
    description: Description | None = None
    project: ProjectName | None = None

    @field_validator("name")
    @classmethod
    def _first_look(cls, name: str) -> str:
        """The wire's first look at a name; the store's own rule follows."""
        if not FIRST_LOOK.fullmatch(name):
            raise ValueError(
                f"Invalid secret name '{name[:80]}'. Allowed characters: letters, digits, underscores, hyphens, and "
                "dots. Example: my-api-key"
            )
        return name


class UpdateSecret(Request):
    """A change to a secret; what is absent or null stays."""

    value: SecretStr | None = None
    description: Description | None = None
    project: ProjectName | None = None


class Rotation(Resource):
    """How a change of the encryption key went."""

    rotated_secrets: Annotated[int, Field(ge=0)]
    success: bool
