# Made by scripts/unasync.py from ../aio/resource.py: change that file and run the script again.
"""What all resources share: the transport, and the workspace that names are looked up in."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel

from tunesmith.api import paths
from tunesmith.api.base import JsonObject
from tunesmith.client.errors import ConflictError, NotFoundError
from tunesmith.client.sync.transport import Transport
from tunesmith.errors import Invalid
from tunesmith.refs import Ref

M = TypeVar("M", bound=BaseModel)


class Resource:
    """A group of calls. Where one takes a name, `workspace/name` does as well and wins over `workspace=`.

    Lists are of one workspace, or of all with `workspace="-"`.
    """

    def __init__(self, transport: Transport, workspace: str) -> None:
        self._transport = transport
        self._workspace = workspace

    def _in(self, path: str, workspace: str | None) -> str:
        """The path of a list in a workspace."""
        return paths.at(path, workspace=self._part("workspace", workspace or self._workspace))

    def _at(self, path: str, name: str, workspace: str | None, /, **parts: str) -> str:
        """The path of the thing `name`; `parts` fill what else the path needs."""
        ref = Ref.parse(name, workspace or self._workspace, field="name")
        for part, value in {"workspace": ref.workspace, "name": ref.name, **parts}.items():
            if not value or value in (".", ".."):
                raise Invalid(f"{part}: '{value}' cannot be a part of an address")
        return paths.at(path, workspace=ref.workspace, name=ref.name, **parts)

    def _new(self, path: str, name: str, workspace: str | None) -> tuple[str, str]:
        """The path of the list that a new thing goes into, and the thing's name there."""
        ref = Ref.parse(name, workspace or self._workspace, field="name")
        return self._in(path, ref.workspace), ref.name

    def _part(self, field: str, value: str) -> str:
        """`value` where it can stand between two slashes; Invalid otherwise."""
        if not value or "/" in value or value in (".", ".."):
            raise Invalid(f"{field}: '{value}' cannot be a part of an address")
        return value

    def _make(self, answer: type[M], path: str, body: JsonObject, there: str | None = None) -> M:
        """POST. With `there`, the address of the thing, what has its name already is returned as it is.

        ConflictError without `there`, and where the name is taken by what cannot be read, as by a workspace on its way
        out or by a thing of another kind.
        """
        try:
            return self._transport.post(answer, path, body)
        except ConflictError as taken:
            if there is None:
                raise
            try:
                return self._transport.get(answer, there)
            except NotFoundError:
                raise taken from None
