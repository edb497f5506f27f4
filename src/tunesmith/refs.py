"""References and names: ``workspace/name`` and ``fileset://workspace/name#path`` are parsed once, here.

Below the door nobody passes ``"workspace/name"`` around as a string.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunesmith.errors import Invalid

DEFAULT_WORKSPACE = "default"

# Stored names, contract 1.6: 2 to 63 characters, lower-case first letter, no "--", no trailing "-".
NAME_PATTERN = r"^[a-z](?!.*--)[a-z0-9\-@.+_]{1,62}(?<!-)\Z"  # for Python's re: it looks around
NAME = re.compile(NAME_PATTERN, re.ASCII)
NAME_RULE = (
    "2 to 63 characters, a lower-case letter first, then lower-case letters, digits and - _ . + @, "
    "without '--' and without '-' at the end"
)
FIRST_LOOK = r"^[\w\-.]+$"  # what the wire checks before the store's own rule
JOB_NAME_LIMIT = 51  # "job-fileset-{name}" must be a lawful fileset name
DEPLOYMENT_NAME_LIMIT = 60  # "{name}-v{n}" must be a lawful name

_FILESET_SCHEME = "fileset://"


@dataclass(frozen=True, slots=True)
class Ref:
    """A thing in a workspace: a model, an adapter, a fileset, a job."""

    workspace: str
    name: str

    def __str__(self) -> str:
        return f"{self.workspace}/{self.name}"

    @classmethod
    def parse(cls, text: str, workspace: str, field: str = "reference") -> Ref:
        """`name` (in `workspace`) or `workspace/name`; Invalid says which field was wrong."""
        parts = text.split("/")
        if len(parts) == 1:
            parts = [workspace, *parts]
        if len(parts) != 2 or not all(parts) or "#" in text:
            raise Invalid(f"{field}: invalid entity reference '{text}'; expected 'name' or 'workspace/name'")
        return cls(*parts)

    @classmethod
    def fileset(cls, text: str, workspace: str, field: str = "fileset") -> Ref:
        """As `parse`, with an optional ``fileset://`` in front."""
        for scheme in ("hf://", "ngc://", "s3://", "gs://"):
            if text.startswith(scheme):
                raise Invalid(
                    f"{field}: '{text}' is not a fileset; create a fileset first and refer to it as 'workspace/name'"
                )
        return cls.parse(text.removeprefix(_FILESET_SCHEME), workspace, field)

    @classmethod
    def unchecked(cls, text: str) -> Ref:
        """A reference this platform wrote itself: always ``workspace/name``."""
        workspace, _, name = text.partition("/")
        return cls(workspace, name)


def check_name(name: str, field: str = "name", limit: int = 63) -> str:
    """The name itself when it is lawful; Invalid with the rule otherwise."""
    if not NAME.fullmatch(name) or len(name) > limit:
        rule = NAME_RULE if limit == 63 else NAME_RULE.replace("63", str(limit), 1)
        raise Invalid(f"{field}: '{name[:80]}' is not a lawful name: {rule}")
    return name
