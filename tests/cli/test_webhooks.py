"""Webhooks from the terminal, against the real application."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tests.cli.terminal import Shell
from tests.live import LiveServer, settings


def test_webhooks_are_made_listed_shown_and_deleted(tmp_path: Path) -> None:
    with LiveServer(replace(settings(tmp_path), webhook_hosts=("127.0.0.1:9000",))) as server:
        shell = Shell(server.url)
        shell("secrets", "create", "signing", stdin="key")
        made = ["webhooks", "create", "tell-me", "--url", "http://127.0.0.1:9000/jobs", "--secret", "signing"]
        shell(*made, "--status", "completed", "--status", "error")
        shown = json.loads(shell("webhooks", "show", "tell-me").stdout)
        assert (shown["statuses"], shown["owed"]) == (["error", "completed"], 0)
        assert "tell-me" in shell("--output", "table", "webhooks", "list").stdout
        assert "'tell-me' already exists" in shell(*made, fails=1).output
        refused = shell("webhooks", "create", "x1", "--url", "http://10.0.0.1", "--secret", "signing", fails=1).output
        assert "TUNESMITH_WEBHOOK_HOSTS" in refused
        wrong = shell(*made[:2], "x2", *made[3:], "--status", "late", fails=1).output
        assert "statuses.0: Input should be 'created'" in wrong
        shell("webhooks", "delete", "tell-me", "--yes")
        assert json.loads(shell("webhooks", "list").stdout) == []
