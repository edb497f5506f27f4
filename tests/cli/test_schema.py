"""`tunesmith schema` prints what a job may say."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tunesmith.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        ([], "AutomodelJobInput"),
        (["automodel"], "AutomodelJobInput"),
        (["unsloth"], "UnslothJobInput"),
        (["rl"], "RlJobInput"),
    ],
)
def test_the_grammar_of_a_backend_is_printed_as_json_schema(arguments: list[str], title: str) -> None:
    result = CliRunner().invoke(app, ["schema", *arguments])
    assert result.exit_code == 0, result.output
    schema = json.loads(result.stdout)
    assert schema["title"] == title
    assert {"model", "dataset", "training"} <= schema["properties"].keys()
    assert all(part.get("description") for part in schema["$defs"].values())


def test_a_backend_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    result = CliRunner().invoke(app, ["schema", "axolotl"])
    assert result.exit_code == 2
    assert "automodel" in result.output
