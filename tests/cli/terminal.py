"""A terminal for tests: commands against a platform, prepared or live."""

from __future__ import annotations

from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from tests.client.samples import Platform
from tunesmith.cli.main import app
from tunesmith.cli.session import Session


def run(platform: Platform, *arguments: str, stdin: Any = None) -> Result:
    """The command as a pipe sees it, against prepared answers."""
    session = Session(transport=platform.transport(), sleep=platform.pauses.append)
    return CliRunner().invoke(app, list(arguments), obj=session, input=stdin)


class Shell:
    """Commands against a live platform."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, *arguments: str, stdin: Any = None, fails: int = 0) -> Result:
        """Run, and insist on how it ends."""
        result = CliRunner().invoke(app, ["--base-url", self.url, *arguments], input=stdin)
        assert result.exit_code == fails, f"{arguments}: {result.output}"
        return result
