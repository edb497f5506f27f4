"""`tunesmith schema`: the grammar of a job, as JSON Schema."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

Backend = Literal["automodel", "unsloth", "rl"]


def schema(backend: Annotated[Backend, typer.Argument(help="Whose jobs.")] = "automodel") -> None:
    """Print every field of a backend's jobs, with its type, default and meaning."""
    from tunesmith.spec.grammars import GRAMMARS

    typer.echo(json.dumps(GRAMMARS[backend].model_json_schema(), indent=2, ensure_ascii=False))
