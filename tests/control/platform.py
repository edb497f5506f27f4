"""A user of platform jobs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from tests.live import JOBS, Wire, eventually, settings
from tunesmith.settings import Settings


def allowing(tmp_path: Path, **changes: Any) -> Settings:
    """Settings with which platform jobs run."""
    return replace(settings(tmp_path), allow_subprocess_jobs=True, **changes)


def shell(name: str, script: str, **more: Any) -> dict[str, Any]:
    """A step that a shell runs."""
    return {"name": name, "executor": {"provider": "subprocess", "command": ["/bin/sh", "-c", script]}, **more}


def python(name: str, code: str, **more: Any) -> dict[str, Any]:
    """A step that Python runs."""
    return {"name": name, "executor": {"provider": "subprocess", "command": [sys.executable, "-c", code]}, **more}


class Platform(Wire):
    """The calls of a user and of a worker."""

    def post(self, *steps: dict[str, Any], name: str | None = "job", **more: Any) -> httpx.Response:
        """Submit a job of these steps."""
        headers = more.pop("headers", {})
        body = {"name": name, "source": "tests", "spec": {"any": 1}, "platform_spec": {"steps": list(steps)}, **more}
        return self.http.post(JOBS, json=body, headers=headers)

    def run(self, *steps: dict[str, Any], name: str = "job", **more: Any) -> dict[str, Any]:
        """The status of a job of these steps once it is over."""
        answer = self.post(*steps, name=name, **more)
        assert answer.status_code == 201, answer.text
        return self.wait(name)

    def sweep(self, data: Path) -> None:
        """Delete all jobs, and wait until nothing of them runs."""
        for job in self.http.get(JOBS, params={"page_size": 1000}).json()["data"]:
            assert self.http.delete(f"{JOBS}/{job['name']}").status_code == 204
        eventually(lambda: not any((data / "runs").glob("*")), "the processes of all jobs to be gone")

    def log(self, name: str = "job", **query: Any) -> list[str]:
        """What the job has printed."""
        return [line["message"] for line in self.http.get(f"{JOBS}/{name}/logs", params=query).json()["data"]]
