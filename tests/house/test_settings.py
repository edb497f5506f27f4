"""Every setting has a variable, a meaning and a page; one that is misspelt is not silently without effect."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.errors import ServerStartError
from tunesmith.settings import NOT_SETTINGS, Settings, unknown_variables, variable_of

ROOT = Path(__file__).parents[2]


def test_a_variable_overrides_a_default() -> None:
    given = {
        "TUNESMITH_DATA_DIR": "/data",
        "TUNESMITH_PORT": "0",
        "TUNESMITH_ALLOWED_HOSTS": "Studio.Example, b,",
        "TUNESMITH_ALLOWED_ENDPOINTS": "https://a/",
        "TUNESMITH_ALLOW_REMOTE_CODE": "yes",
        "TUNESMITH_LOG_FORMAT": "json",
        "HF_ENDPOINT": "https://hub/",
    }
    settings = Settings.from_environment(given)
    assert (settings.data_dir, settings.port, settings.log_format) == (Path("/data"), 0, "json")
    assert (settings.allowed_hosts, settings.allowed_endpoints) == (("studio.example", "b"), ("https://a",))
    assert (settings.allow_remote_code, settings.hub_endpoint) == (True, "https://hub")
    assert Settings.from_environment({**given, "TUNESMITH_HUB_ENDPOINT": "https://own"}).hub_endpoint == "https://own"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TUNESMITH_PORT", "65536"),
        ("TUNESMITH_PORT", "http"),
        ("TUNESMITH_CPU_SLOTS", "0"),
        ("TUNESMITH_LOG_FORMAT", "xml"),
        ("TUNESMITH_ALLOW_REMOTE_CODE", "perhaps"),
    ],
)
def test_a_value_that_cannot_be_read_stops_the_start_and_names_the_rule(variable: str, value: str) -> None:
    with pytest.raises(ServerStartError, match=f"{variable}='{value}' must be"):
        Settings.from_environment({variable: value})


def test_a_misspelt_variable_is_named_with_its_neighbour() -> None:
    assert unknown_variables({"TUNESMITH_PROT": "1", "TUNESMITH_PORT": "1", "PATH": "", "TUNESMITH_BASE_URL": ""}) == [
        "TUNESMITH_PROT is not a setting and has no effect; is TUNESMITH_PORT meant?"
    ]
    assert unknown_variables({"TUNESMITH_XYZZY_QUUX": "1"}) == [
        "TUNESMITH_XYZZY_QUUX is not a setting and has no effect"
    ]


def test_what_grants_access_is_not_shown() -> None:
    shown = repr(Settings(secret_key="canary", database_url="postgresql://me:canary@host/name"))
    assert "canary" not in shown


def test_every_setting_is_on_the_page() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    for field in dataclasses.fields(Settings):
        assert re.search(rf"^\| `{variable_of(field.name)}` \|.*\| .+ \|$", page, re.MULTILINE), field.name


def test_every_variable_that_our_code_reads_is_known() -> None:
    """Else the server would call it misspelt."""
    known = {variable_of(field.name) for field in dataclasses.fields(Settings)} | NOT_SETTINGS
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *(ROOT / "tests").rglob("*.py")]
    for file in files:
        if file != Path(__file__):
            assert set(re.findall(r"(?<!_)TUNESMITH_[A-Z][A-Z_]+[A-Z]", file.read_text())) <= known, file


def test_the_reference_is_as_the_code_has_it() -> None:
    done = subprocess.run([sys.executable, "scripts/docs.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
