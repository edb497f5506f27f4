"""Where the platform is and how patiently it is asked: arguments first, then the environment, then defaults."""

from __future__ import annotations

import os
import platform

import httpx

from tunesmith import __version__
from tunesmith.errors import Invalid
from tunesmith.refs import DEFAULT_WORKSPACE

DEFAULT_BASE_URL = "http://localhost:8080"
CONNECT_SECONDS = 5.0
TIMEOUT_SECONDS = 60.0
"""Longest silence of the platform that is borne, unless a call says otherwise."""
ANSWER_SECONDS = 600.0
"""The same for a model's answer: on a processor, behind a queue, it takes its time."""
MAX_RETRIES = 2

HEADERS = {
    "User-Agent": f"tunesmith/{__version__} python/{platform.python_version()}",
    "Accept": "application/json",
}


def find_base_url(given: str | None) -> str:
    """`given`, else TUNESMITH_BASE_URL, else NMP_BASE_URL, else this machine; without a slash at the end."""
    found = given or os.environ.get("TUNESMITH_BASE_URL") or os.environ.get("NMP_BASE_URL") or DEFAULT_BASE_URL
    url = found.rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise Invalid(f"base_url: '{found}' must start with http:// or https://, as in {DEFAULT_BASE_URL}")
    return url


def find_workspace(given: str | None) -> str:
    """`given`, else TUNESMITH_WORKSPACE, else NMP_WORKSPACE, else `default`."""
    return (
        given or os.environ.get("TUNESMITH_WORKSPACE") or os.environ.get("NMP_WORKSPACE") or DEFAULT_WORKSPACE
    ).strip()


def silence(seconds: float) -> httpx.Timeout:
    """`seconds` for everything but connecting, which is fast or never."""
    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
