"""Brings the remote inputs of jobs and deployments here before they start: one task each, looked at in turns.

Nothing of it is stored: a server that comes back finds inputs without digests and begins again, where the bytes that
are here end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tunesmith.control.contents import Contents, Progress
from tunesmith.store.filesets import Snapshot

ARRIVED: Final = {"progress_pct": 100, "current_file": ""}

Inputs = Mapping[str, Snapshot]
"""By what they are for: model, data, validation."""


@dataclass(slots=True)
class _Bringing:
    """One holder's inputs on their way."""

    inputs: Inputs
    task: asyncio.Task[Inputs] | None = None
    completed: int = 0
    current: str = ""
    progress: Progress = field(default_factory=Progress)
    told: tuple[object, ...] = ()
    """What was said of it last."""


class Fetching:
    """The inputs that are on their way, by who needs them."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self._running: dict[str, _Bringing] = {}

    async def look(self, holder: str, inputs: Inputs) -> Inputs | None:
        """The inputs with every byte here; None while they are on their way, which the first look starts.

        Whatever went wrong is raised once; another look begins again.
        """
        if all(here(snapshot) for snapshot in inputs.values()):
            return inputs
        bringing = self._running.get(holder)
        if bringing is None:
            bringing = self._running[holder] = _Bringing(inputs)
            bringing.task = asyncio.create_task(self._bring(bringing), name=f"bring {holder}")
        assert bringing.task is not None
        await asyncio.wait([bringing.task], timeout=0)
        if not bringing.task.done():
            return None
        del self._running[holder]
        return bringing.task.result()

    def news(self, holder: str) -> dict[str, Any]:
        """How far it is, as a job's status details have it; nothing when that was said already."""
        bringing = self._running.get(holder)
        if bringing is None:
            return {}
        progress = bringing.progress
        percent = 100 * progress.downloaded_bytes // max(1, progress.total_bytes)
        tell = (bringing.current, progress.total_files, progress.downloaded_files, percent)
        if tell == bringing.told:
            return {}
        bringing.told = tell
        return {
            "phase": "downloading",
            "total_filesets": len(bringing.inputs),
            "completed_filesets": bringing.completed,
            "current_fileset": bringing.current,
            "fileset": bringing.current,
            "total_files": progress.total_files,
            "total_size": progress.total_bytes,
            "downloaded_files": progress.downloaded_files,
            "downloaded_bytes": progress.downloaded_bytes,
            "current_file": progress.current_file,
            "progress_pct": percent,
        }

    async def drop(self, holder: str) -> None:
        """Stop; what is here stays for whoever comes next."""
        bringing = self._running.pop(holder, None)
        if bringing and bringing.task:
            bringing.task.cancel()
            await asyncio.gather(bringing.task, return_exceptions=True)

    async def close(self) -> None:
        """Stop all."""
        for holder in list(self._running):
            await self.drop(holder)

    async def _bring(self, bringing: _Bringing) -> Inputs:
        brought = {}
        for name, snapshot in bringing.inputs.items():
            bringing.current, bringing.progress = snapshot.fileset, Progress()
            brought[name] = await self.contents.bring(snapshot, bringing.progress)
            bringing.completed += 1
        return brought


def here(snapshot: Snapshot) -> bool:
    """Whether every file's bytes are known by digest."""
    return all(file.digest for file in snapshot.files)
