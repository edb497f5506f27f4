# Made by scripts/unasync.py from ../aio/resource.py: change that file and run the script again.
"""What all resources share: the transport, and the workspace that names are looked up in."""

from __future__ import annotations

from tunesmith.api import paths
from tunesmith.client.sync.transport import Transport
from tunesmith.errors import Invalid
from tunesmith.refs import Ref


class Resource:
    """A group of calls. Where one takes a name, `workspace/name` does as well and wins over `workspace=`."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        self._transport = transport
        self._workspace = workspace

    def _in(self, path: str, workspace: str | None) -> str:
        """The path of a list in a workspace."""
        return paths.at(path, workspace=workspace or self._workspace)

    def _at(self, path: str, name: str, workspace: str | None, /, **parts: str) -> str:
        """The path of the thing `name`; `parts` fill what else the path needs."""
        ref = Ref.parse(name, workspace or self._workspace, field="name")
        for part, value in {"workspace": ref.workspace, "name": ref.name, **parts}.items():
            if not value or value in (".", ".."):
                raise Invalid(f"{part}: '{value}' cannot be a part of an address")
        return paths.at(path, workspace=ref.workspace, name=ref.name, **parts)
