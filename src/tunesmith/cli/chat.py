"""`tunesmith chat`: talk to a model or an adapter that is served."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli import render
from tunesmith.cli.session import Output, complain, note, session
from tunesmith.errors import TunesmithError

if TYPE_CHECKING:
    from tunesmith.api.base import JsonObject
    from tunesmith.client.sync.client import Tunesmith


def chat(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Model or adapter, name or workspace/name.")],
    message: Annotated[str | None, typer.Argument(help="What to say; without it, a conversation.")] = None,
    system: Annotated[str | None, typer.Option(help="System message that opens the conversation.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 = always the likeliest token.")] = None,
) -> None:
    """Talk to a model or an adapter that is served."""
    shell = session(ctx)
    history: list[JsonObject] = [{"role": "system", "content": system}] if system else []
    params: dict[str, Any] = {
        key: value for key, value in {"max_tokens": max_tokens, "temperature": temperature}.items() if value is not None
    }
    if message is None:
        converse(shell.client, model, history, params)
        return
    history.append({"role": "user", "content": message})
    if shell.output is Output.json:  # a piped answer is text unless JSON is asked for
        render.print_json(shell.client.inference.chat(model=model, messages=history, **params))
        return
    stream(shell.client, model, history, params)


def converse(client: Tunesmith, model: str, history: list[JsonObject], params: dict[str, Any]) -> None:
    """Take turns until the end of the input; an answer that fails leaves the conversation as it was."""
    note(f"talking to {model}; Ctrl-D ends")
    while (said := _line()) is not None:
        if not said.strip():
            continue
        history.append({"role": "user", "content": said})
        try:
            history.append({"role": "assistant", "content": stream(client, model, history, params)})
        except TunesmithError as error:
            complain(error.message)
            history.pop()


def stream(client: Tunesmith, model: str, history: list[JsonObject], params: dict[str, Any]) -> str:
    """Print an answer while it comes; returns it."""
    pieces = []
    with client.inference.chat(model=model, messages=history, stream=True, **params) as chunks:
        for chunk in chunks:
            for choice in chunk.get("choices") or []:
                piece = (choice.get("delta") or {}).get("content") or ""
                pieces.append(piece)
                sys.stdout.write(piece)
                sys.stdout.flush()
    sys.stdout.write("\n")
    return "".join(pieces)


def _line() -> str | None:
    """What the user types; None at the end of the input."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        return None
