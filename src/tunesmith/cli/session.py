"""What all commands share: where the platform is, how answers are shown, and errors as one line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from tunesmith.errors import TunesmithError

# The SDK takes half a second to load; --help, --version and shell completion do without.
if TYPE_CHECKING:
    import httpx

    from tunesmith.client.sync.client import Tunesmith

FAILED = 1
MISUSED = 2
INTERRUPTED = 130

SHARED = frozenset({"--base-url", "--workspace", "--output"})
"""Options of all commands, each with a value."""


class Output(StrEnum):
    """How answers are shown."""

    table = "table"
    json = "json"


@dataclass
class Session:
    """The global options. `transport` and `sleep` are for tests."""

    base_url: str | None = None
    workspace: str | None = None
    output: Output | None = None
    """None = a table on a terminal, JSON when piped."""
    transport: httpx.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep
    _opened: list[Tunesmith] = field(default_factory=list)

    @property
    def client(self) -> Tunesmith:
        """The SDK's client, opened on first use."""
        if not self._opened:
            from tunesmith.client.sync.client import Tunesmith

            self._opened.append(
                Tunesmith(self.base_url, self.workspace, transport=self.transport, sleep=self.sleep),
            )
        return self._opened[0]

    @property
    def json(self) -> bool:
        """Whether answers are for programs."""
        return self.output is Output.json if self.output else not sys.stdout.isatty()

    def close(self) -> None:
        """Close the client if it was opened."""
        for client in self._opened:
            client.close()


class Polite(TyperGroup):
    """A group of commands that ends with a sentence where others end with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a refusal becomes one red message and exit code 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader has seen enough
        except (TunesmithError, OSError) as error:
            if isinstance(error, OSError) and error.filename:
                complain(f"{error.filename}: {error.strerror}")
            else:
                complain(str(error))
            raise typer.Exit(FAILED) from error
        finally:
            if isinstance(ctx.obj, Session):
                ctx.obj.close()


class Root(Polite):
    """The command line as a whole: the options that all commands share may stand anywhere in it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the shared options in front of the command, which does not know them; after `--` all is taken as is."""
        shared: list[str] = []
        rest = list(args)
        for at in range(len(args) - 1, -1, -1):
            name, equals, _ = args[at].partition("=")
            if name in SHARED and "--" not in args[:at]:
                shared[:0] = rest[at : at + (1 if equals else 2)]
                del rest[at : at + (1 if equals else 2)]
        return super().parse_args(ctx, shared + rest)


def session(ctx: typer.Context) -> Session:
    """The command's session."""
    found = ctx.find_object(Session)
    assert found is not None, "the main callback makes it"
    return found


def interactive() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def make_sure(question: str, yes: bool) -> None:
    """Ask before what cannot be undone, where there is somebody to ask; ends the command unless told to go on."""
    if not yes and interactive():
        typer.confirm(question, abort=True, err=True)


def complain(message: str) -> None:
    """Say what is wrong, in red, to the error stream."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(message, style="red"))


def note(message: str) -> None:
    """Say something beside the answer, to the error stream, so that pipes get the answer only."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(message))
