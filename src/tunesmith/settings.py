"""The platform's settings, read from the environment in one place.

Engine processes do not use this module: they read the environment that the launcher gave them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from tunesmith.errors import ServerStartError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides. Environment variables are the field names in capitals after `TUNESMITH_`."""

    data_dir: Path = field(default_factory=lambda: Path.home() / ".tunesmith")
    """Everything the platform keeps: database, blobs, runs, deployments."""
    host: str = DEFAULT_HOST
    """Address to listen on."""
    port: int = DEFAULT_PORT
    """Port to listen on; 0 takes a free one."""
    cpu_slots: int = 1
    """Training jobs that run at once on a machine without GPUs."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names in Host and Origin headers under which this server may be addressed, beside the address it
    listens on and the loopback names. Comma-separated in the environment."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Defaults, overridden by `TUNESMITH_*`; ServerStartError names a variable that cannot be read."""
        env = os.environ if environment is None else environment
        settings = cls()
        if value := env.get("TUNESMITH_DATA_DIR"):
            settings = replace(settings, data_dir=Path(value).expanduser())
        if value := env.get("TUNESMITH_HOST"):
            settings = replace(settings, host=value)
        if value := env.get("TUNESMITH_PORT"):
            settings = replace(settings, port=_whole("TUNESMITH_PORT", value, 0, 65535))
        if value := env.get("TUNESMITH_CPU_SLOTS"):
            settings = replace(settings, cpu_slots=_whole("TUNESMITH_CPU_SLOTS", value, 1, 1024))
        if value := env.get("TUNESMITH_ALLOWED_HOSTS"):
            names = tuple(name.strip().lower() for name in value.split(",") if name.strip())
            settings = replace(settings, allowed_hosts=names)
        return settings


def _whole(variable: str, value: str, low: int, high: int) -> int:
    try:
        number = int(value)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise ServerStartError(f"{variable}='{value}' must be a whole number from {low} to {high}")
    return number
