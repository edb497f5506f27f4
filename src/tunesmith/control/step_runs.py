"""The run of a platform job's step: its directories, what its process is told, and the process itself.

In the job's run lie `steps/<step>/` (configuration, keeper's files, logs), `work/<step>/` (where the process works) and
`storage/`, which all steps of the job share.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Final

from tunesmith.control.launch import local
from tunesmith.control.launch.forker import Forker
from tunesmith.control.launch.local import Exit, Identity
from tunesmith.control.logs import step_run
from tunesmith.control.platform_jobs import GRACE_SECONDS, fileset_of, secrets_of
from tunesmith.control.request_id import VARIABLE
from tunesmith.control.secrets import Vault
from tunesmith.store.data_dir import DataDir
from tunesmith.store.jobs import Discard
from tunesmith.store.platform_steps import PlatformStep

LAST_WORDS: Final = 20
"""Lines of output that an error quotes."""
SERVICES: Final = ("JOBS", "FILES", "MODELS", "SECRETS")


class StepRuns:
    """Directories and processes of steps."""

    def __init__(self, data_dir: DataDir, vault: Vault, address: str) -> None:
        self.data_dir = data_dir
        self.vault = vault
        self.address = address
        """Where workers find this server; "" until a request tells which port it has."""
        self.forker = Forker(local.engine_environment({}))

    def directory(self, step: PlatformStep) -> Path:
        """What is known of the step's launches."""
        return step_run(self.data_dir.run(step.job_id), step.name)

    def work(self, step: PlatformStep) -> Path:
        """Where its process works."""
        return self.data_dir.run(step.job_id) / "work" / step.name

    def storage(self, step: PlatformStep) -> Path:
        """What all steps of the job share."""
        return self.data_dir.run(step.job_id) / "storage"

    def found(self, step: PlatformStep) -> Identity | None:
        """The keeper of the step's present launch, if there is one."""
        return local.find(self.directory(step), "step", step.attempt)

    async def start(self, step: PlatformStep) -> Identity:
        """Start the step's process, or find it started. NotFound without one of its secrets, EngineError, OSError."""
        environment = await self._environment(step)
        await asyncio.to_thread(self._make_ready, step)
        return await local.start(
            self.directory(step),
            "step",
            step.attempt,
            list(step.spec["executor"]["command"]),
            local.engine_environment(environment),
            grace_seconds=GRACE_SECONDS,
            cwd=self.work(step),
            forker=self.forker,
        )

    def ended(self, step: PlatformStep, identity: Identity, *, surely: bool) -> Exit | None:
        """How the process ended; None while it runs. Blocking when its keeper was lost, which is looked for `surely`
        only."""
        run = self.directory(step)
        facts = local.exit_facts(run, "step", step.attempt)
        if facts is None and surely and not local.alive(identity):
            return local.lost(run, "step", step.attempt, identity)
        return facts

    def log_bytes(self, step: PlatformStep) -> int:
        """How much its process has printed."""
        path = local.log_path(self.directory(step), "step", step.attempt)
        return path.stat().st_size if path.exists() else 0

    def last_words(self, step: PlatformStep) -> str:
        """The end of what its process printed."""
        lines = local.last_lines(self.directory(step), "step", step.attempt, LAST_WORDS)
        return "\n".join(line.text for line in lines)

    def left(self, gone: Discard) -> list[Identity]:
        """The keepers of a deleted job that still run. Blocking: what a dead one left behind is ended."""
        found = []
        for name in gone.steps:
            run = step_run(self.data_dir.run(gone.id), name)
            for attempt in range(1, gone.attempt + 1):
                identity = local.find(run, "step", attempt)
                if identity is None:
                    continue
                if local.alive(identity):
                    found.append(identity)
                else:
                    local.lost(run, "step", attempt, identity)
        return found

    def remove(self, gone: Discard) -> None:
        """Delete the run of a deleted job. Blocking."""
        run = self.data_dir.run(gone.id)
        if run.exists():
            shutil.rmtree(run)

    def _make_ready(self, step: PlatformStep) -> None:
        for directory in (self.directory(step), self.work(step), self.storage(step)):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.directory(step) / "config.json").write_text(json.dumps(step.spec["config"]))

    async def _environment(self, step: PlatformStep) -> dict[str, str]:
        """No device, where this server is; then the step's own variables and secrets; then who and where it is."""
        given = {each["name"]: each["value"] for each in step.spec["environment"] or () if each["value"] is not None}
        secrets = secrets_of(step.job.workspace, step.spec)
        given |= {variable: await self.vault.value(ref) for variable, ref in secrets}
        names = ("TUNESMITH_BASE_URL", "NMP_BASE_URL", *(f"NMP_{service}_URL" for service in SERVICES))
        return {
            "CUDA_VISIBLE_DEVICES": "",
            **(dict.fromkeys(names, self.address) if self.address else {}),
            **given,
            "NEMO_JOB_ID": step.job.name,
            "NEMO_JOB_WORKSPACE": step.job.workspace,
            "NEMO_JOB_ATTEMPT_ID": step.attempt_id,
            "NEMO_JOB_STEP": step.name,
            "NEMO_JOB_TASK": step.task_id,
            "NEMO_JOB_FILESET": fileset_of(step.job),
            "NEMO_JOB_STEP_CONFIG_FILE_PATH": str(self.directory(step) / "config.json"),
            "NEMO_JOB_STEP_CONFIG_STORAGE_PATH": str(self.directory(step)),
            "NEMO_JOB_PERSISTENT_JOB_STORAGE_PATH": str(self.storage(step)),
            "NEMO_JOB_EPHEMERAL_TASK_STORAGE_PATH": str(self.work(step)),
            VARIABLE: step.request_id,
        }


def address(host: str, port: int) -> str:
    """Where a process of this machine reaches a server that listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
