"""Shows rows with their loss mask before a job is submitted: the server never renders, a short process does."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.api.previews import CreatePreview, Preview
from tunesmith.control.checkpoints import read_facts, refuse_without_tokenizer
from tunesmith.control.contents import Contents
from tunesmith.control.launch.local import engine_environment
from tunesmith.data import previews
from tunesmith.data.find import SUFFIXES
from tunesmith.data.previews import PreviewRequest
from tunesmith.data.rows import RowRules
from tunesmith.errors import DataError, EngineError, Invalid, NotFound
from tunesmith.refs import Ref
from tunesmith.store.data_dir import DataDir
from tunesmith.store.database import Database, Tx
from tunesmith.store.filesets import Snapshot, StoredFile

AT_ONCE = 2
"""Processes side by side; further requests wait for one of them."""
SECONDS = 10.0
"""That one may take."""
FETCH_BYTES = 256 << 20
"""That a preview may have to fetch from a remote storage while its caller waits."""


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What a preview reads, as it is now."""

    model: Ref
    base: Snapshot
    data: Snapshot


class PreviewService:
    """Previews of rows."""

    def __init__(self, database: Database, contents: Contents, data_dir: DataDir) -> None:
        self.database = database
        self.contents = contents
        self.scratch = data_dir.root / "previews"
        """A directory for each preview while it is made."""
        shutil.rmtree(self.scratch, ignore_errors=True)  # what a killed server left
        self._lanes = asyncio.Semaphore(AT_ONCE)

    async def create(self, workspace: str, asked: CreatePreview) -> Preview:
        """The rows that are asked for.

        Invalid names file, line and key of bad ones among them, or the field that cannot be, or says that the template
        takes too long. Upstream or Unavailable when a remote storage does not answer.
        """
        rules = _rules(asked)
        inputs = await self.database.read(_resolve, workspace, asked)
        if await self.contents.refresh(Ref.unchecked(inputs.data.fileset)):
            inputs = await self.database.read(_resolve, workspace, asked)
        refuse_without_tokenizer(inputs.base)
        facts = await read_facts(inputs.base, self.contents, (inputs.model.name,))
        with self.contents.blobs.hold(_digests(inputs.base, inputs.data)):
            base = await self._bring(inputs.base, "model", lambda file: file.path in previews.TOKENIZER_FILES)
            data = await self._bring(inputs.data, "dataset", lambda file: file.path.endswith(SUFFIXES))
            template = asked.chat_template or inputs.base.chat_template or facts.chat_template
            limit = min(asked.max_seq_length, facts.context_size or asked.max_seq_length)
            async with self._lanes:
                answer = await asyncio.to_thread(self._make, base, data, rules, template, limit, asked.rows)
        return Preview.model_validate(answer)

    async def _bring(self, snapshot: Snapshot, field: str, wanted: Callable[[StoredFile], bool]) -> Snapshot:
        """The snapshot with nothing but the wanted files, whose bytes are here."""
        part = replace(snapshot, files=tuple(filter(wanted, snapshot.files)))
        missing = sum(file.size for file in part.files if file.digest is None)
        if missing > FETCH_BYTES:
            raise Invalid(
                f"{field}: {missing:,} bytes of fileset '{snapshot.fileset}' are not here yet, more than is fetched "
                f"for a preview ({FETCH_BYTES:,}); download its files once, or make it with `cache: true`"
            )
        return await self.contents.bring(part)

    def _make(
        self, base: Snapshot, data: Snapshot, rules: RowRules, template: str, limit: int, rows: int
    ) -> dict[str, Any]:
        """Lay the files out, start the process, clear up. Blocking."""
        self.scratch.mkdir(exist_ok=True, mode=0o700)
        room = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            for name, snapshot in (("model", base), ("data", data)):
                (room / name).mkdir()
                self.contents.blobs.link(snapshot.files, room / name)
            request = PreviewRequest(
                data=str(room / "data"),
                model=str(room / "model"),
                chat_template=template,
                sequence_limit=limit,
                rows=rows,
                rules=rules,
                seconds=SECONDS,
            )
            return previews.run(request, room, engine_environment({"TOKENIZERS_PARALLELISM": "false"}))
        except DataError as error:
            raise Invalid(error.message) from None
        except EngineError as error:
            raise EngineError(f"the preview failed: {error.message}", "InternalError") from None
        finally:
            shutil.rmtree(room, ignore_errors=True)


def _rules(asked: CreatePreview) -> RowRules:
    try:
        return previews.rules_of(
            asked.backend,
            text_field=asked.text_field,
            apply_chat_template=asked.apply_chat_template,
            prompt_template=asked.prompt_template,
        )
    except DataError as error:
        raise Invalid(error.message) from None


def _resolve(tx: Tx, workspace: str, asked: CreatePreview) -> _Inputs:
    """Look up what is named; Invalid names the field whose target is missing or empty."""
    model = Ref.parse(asked.model, workspace, "model")
    try:
        entity = tx.models.get(model.workspace, model.name)
    except NotFound as error:
        raise Invalid(f"model: {error.message}") from None
    if entity.fileset is None:
        raise Invalid(f"model: '{model}' has no fileset with a tokenizer; give it one first")
    data = _snapshot(tx, Ref.fileset(asked.dataset, workspace, "dataset"), "dataset")
    if not any(file.path.endswith(SUFFIXES) for file in data.files):
        there = ", ".join(file.path for file in data.files[:5]) or "nothing"
        raise Invalid(
            f"dataset: fileset '{data.fileset}' has no {' or '.join(SUFFIXES)} file; it holds {there}. Upload one first"
        )
    return _Inputs(model, _snapshot(tx, Ref.fileset(entity.fileset, model.workspace, "model"), "model"), data)


def _snapshot(tx: Tx, ref: Ref, field: str) -> Snapshot:
    try:
        return tx.filesets.snapshot(ref)
    except NotFound as error:
        raise Invalid(f"{field}: {error.message}") from None


def _digests(*snapshots: Snapshot) -> set[str]:
    return {file.digest for each in snapshots for file in each.files if file.digest}
