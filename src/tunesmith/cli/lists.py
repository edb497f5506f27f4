"""What all lists and all changes take: the options they share, and how a list is asked for and shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, TypeVar

import typer

from tunesmith.cli import render, specfile
from tunesmith.cli.session import Session
from tunesmith.errors import Invalid

M = TypeVar("M", bound=render.Shown)

EVERYWHERE = "-"
"""Names all workspaces where a workspace is asked for."""
PAGE_SIZE = 100

Filter = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help='Only what fits, as in \'name~"mail" AND created_at > "2026-01-01"\'.'),
]
Sort = Annotated[str | None, typer.Option(help="A field such as name or created_at; - in front for descending.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many.")]
AllWorkspaces = Annotated[bool, typer.Option("--all-workspaces", "-A", help="Of all workspaces.")]
OfProject = Annotated[str | None, typer.Option(help="Only what belongs to this project.")]

Description = Annotated[str | None, typer.Option(help="Free text.")]
Project = Annotated[str | None, typer.Option(help="Project that it belongs to.")]
ExistOk = Annotated[bool, typer.Option("--exist-ok", help="Take what has the name already as it is.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass(frozen=True)
class Asked:
    """What a list was asked for."""

    filter: str | None = None
    sort: str | None = None
    limit: int | None = None
    everywhere: bool = False
    project: str | None = None

    @property
    def query(self) -> str | None:
        """Filter and project as one filter."""
        parts = [f"({self.filter})"] if self.filter and self.project else [self.filter] if self.filter else []
        if self.project:
            parts.append(f"project:{json.dumps(self.project, ensure_ascii=False)}")
        return " AND ".join(parts) or None


def show(
    session: Session,
    listed: Callable[..., Iterable[M]],
    columns: render.Columns[M],
    nothing: str,
    asked: Asked,
    **more: Any,
) -> None:
    """Ask `listed`, a list of the SDK, and show what comes; `nothing` is what an empty table says."""
    if asked.everywhere:
        columns = {"WORKSPACE": lambda item: getattr(item, "workspace", None), **columns}
        more["workspace"] = EVERYWHERE
    size = min(asked.limit or PAGE_SIZE, PAGE_SIZE)
    items = listed(filter=asked.query, sort=asked.sort, page_size=size, **more)
    narrowed = asked.query is not None
    render.many(session, islice(items, asked.limit), columns, "nothing fits" if narrowed else nothing)


def assigned(assignments: Iterable[str], below: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """What `--set PATH=VALUE` makes of the objects in `below`; only those that a path leads into are returned.

    Invalid for a path that leads elsewhere.
    """
    changed: dict[str, Any] = {}
    for assignment in assignments:
        top = assignment.partition("=")[0].strip().partition(".")[0]
        if top not in below or not assignment.partition("=")[0].strip().startswith(f"{top}."):
            places = " or ".join(f"{name}.KEY" for name in below)
            raise Invalid(f"--set {assignment}: a path here is {places}, as in --set {next(iter(below))}.team=mail")
        changed.setdefault(top, dict(below[top] or {}))
        specfile.assign(changed, assignment)
    return changed
