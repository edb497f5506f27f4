"""The platform's settings, read from the environment in one place.

Engine processes do not use this module: they read the environment that the launcher gave them. A new setting is a new
field with a docstring; its variable, its reading and its line in docs/reference/settings.md follow from that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self, get_type_hints

from tunesmith.errors import ServerStartError

PREFIX = "TUNESMITH_"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080

NOT_SETTINGS = frozenset(
    PREFIX + name
    for name in (
        *("BASE_URL", "WORKSPACE"),  # the client's
        *("ATTEMPT", "CHECKPOINT_SECONDS", "KEEPER", "REQUEST_ID", "SERVE_TOKEN"),  # what the launcher tells an engine
        # the project's own tests
        *("CI_TIMED", "CRASH_AT", "NEMO_MICROSERVICES_PYTHON", "NEMO_PYTHON", "NO_SKIP", "TEST_TRACKERS"),
    )
)
"""Variables with our prefix that others read."""


def _url(text: str) -> str:
    return text.rstrip("/")


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides. Environment variables are the field names in capitals after `TUNESMITH_`.

    A field's `metadata` may say `low` and `high` (bounds of a number), `also` (another variable, read when ours is not
    set) and `tidy` (what is done to each text).
    """

    data_dir: Path = field(default_factory=lambda: Path.home() / ".tunesmith")
    """Everything the platform keeps: database, blobs, runs, deployments."""
    host: str = DEFAULT_HOST
    """Address to listen on."""
    port: int = field(default=DEFAULT_PORT, metadata={"high": 65535})
    """Port to listen on; 0 takes a free one."""
    log_format: Literal["auto", "text", "json"] = "auto"
    """What the server's log looks like: `text` for people, `json` for machines, `auto` = text on a terminal, else
    json."""
    leave_running: bool = False
    """Whether jobs go on when the server is stopped; else they leave a checkpoint, and the next server resumes them."""
    cpu_slots: int = field(default=1, metadata={"low": 1, "high": 1024})
    """Training jobs that run at once on a machine without GPUs."""
    warm_seconds: int = field(default=300, metadata={"high": 86400})
    """Seconds without work after which the process leaves that jobs are forked from, on a machine without GPUs: it has
    the trainer's imports behind it (5 CPU-seconds, 350 MB). 0 = each process starts afresh."""
    allow_subprocess_jobs: bool = False
    """Whether whoever reaches the API may submit platform jobs, which run any command as this server's user."""
    platform_job_slots: int = field(default=0, metadata={"high": 1024})
    """Steps of platform jobs that run at once, beside the training jobs; 0 = one a processor, 2 at least."""
    database_url: str = field(default="", repr=False)
    """A PostgreSQL database (`postgresql://user@host/name`); "" = SQLite in the data directory."""
    secret_key: str = field(default="", repr=False)
    """Encrypts secrets at rest: 32 bytes in base64; "" = the file `secret.key` in the data directory, made if
    absent."""
    secret_key_old: str = field(default="", repr=False)
    """A key that secrets may still be encrypted with, in the same form: for a change of `secret_key`."""
    hub_endpoint: str = field(default="https://huggingface.co", metadata={"also": "HF_ENDPOINT", "tidy": _url})
    """The Hugging Face hub that filesets come from unless they name another; read from HF_ENDPOINT too."""
    allowed_endpoints: tuple[str, ...] = field(
        default=("https://huggingface.co", "https://api.ngc.nvidia.com"), metadata={"tidy": _url}
    )
    """Addresses of remote storages that filesets may name, beside `hub_endpoint`. Comma-separated."""
    retention_days: int = field(default=30, metadata={"low": 1, "high": 36500})
    """Days after which an ended job's inputs, checkpoints and artifact are deleted; plan, events and logs stay."""
    cache_days: int = field(default=30, metadata={"low": 1, "high": 36500})
    """Days after which the local copy of a remote file that nobody has read is deleted."""
    webhook_hosts: tuple[str, ...] = field(default=(), metadata={"tidy": str.lower})
    """Hosts that webhooks may name, `host` or `host:port` (without a port, the scheme's own). Comma-separated;
    none = no webhooks."""
    allow_remote_code: bool = False
    """Whether a model entity may ask for code of its checkpoint to be run (`trust_remote_code`)."""
    allowed_hosts: tuple[str, ...] = field(default=(), metadata={"tidy": str.lower})
    """Further names in Host and Origin headers under which this server may be addressed, beside the address it
    listens on and the loopback names. Comma-separated in the environment."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Defaults, overridden by `TUNESMITH_*`; ServerStartError names a variable that cannot be read."""
        env = os.environ if environment is None else environment
        kinds = get_type_hints(cls)
        given: dict[str, Any] = {}
        for setting in fields(cls):
            for variable in (variable_of(setting.name), setting.metadata.get("also", "")):
                if value := env.get(variable):
                    given[setting.name] = _read(variable, value, kinds[setting.name], setting)
                    break
        return cls(**given)


def variable_of(setting: str) -> str:
    """The environment variable that sets a field."""
    return PREFIX + setting.upper()


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each variable that looks like a setting and is none, with the nearest one there is."""
    known = {variable_of(setting.name) for setting in fields(Settings)}
    found = []
    for variable in sorted(os.environ if environment is None else environment):
        if not variable.startswith(PREFIX) or variable in known | NOT_SETTINGS:
            continue
        near = get_close_matches(variable, sorted(known | NOT_SETTINGS), 1, 0.8)
        found.append(f"{variable} is not a setting and has no effect" + (f"; is {near[0]} meant?" if near else ""))
    return found


def _read(variable: str, value: str, kind: Any, setting: Field[Any]) -> Any:
    """`value` as the field's type has it."""
    tidy: Callable[[str], str] = setting.metadata.get("tidy", str)
    if kind is int:
        return _whole(variable, value, setting.metadata.get("low", 0), setting.metadata.get("high", 10**9))
    if kind is bool:
        return _yes(variable, value)
    if kind is Path:
        return Path(value).expanduser()
    if kind == tuple[str, ...]:
        return tuple(tidy(item.strip()) for item in value.split(",") if item.strip())
    if kind is not str and value not in kind.__args__:
        raise ServerStartError(f"{variable}='{value}' must be one of {', '.join(kind.__args__)}")
    return tidy(value)


def _whole(variable: str, value: str, low: int, high: int) -> int:
    try:
        number = int(value)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise ServerStartError(f"{variable}='{value}' must be a whole number from {low} to {high}")
    return number


def _yes(variable: str, value: str) -> bool:
    answers = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if value.lower() not in answers:
        raise ServerStartError(f"{variable}='{value}' must be one of {', '.join(answers)}")
    return answers[value.lower()]
