"""Rendered rows with their loss mask, made by a process of its own: a chat template is foreign code and may loop.

`run` starts `python -m tunesmith.data preview REQUEST.json` (see `show.py`) under a time limit and reads its answer.
This file is what the caller needs: it loads neither jinja nor tokenizers.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunesmith.data.rows import RowRules
from tunesmith.errors import DataError, EngineError
from tunesmith.handoff.base import HandedFile

SECONDS = 10.0
"""That a preview may take unless told otherwise."""
MEMORY_BYTES = 4 << 30
"""Of address space that the process may have: a template can make a text that nothing holds."""
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config.json",
    "generation_config.json",
)
"""All that is read of a checkpoint to turn rows into tokens."""

READING, RENDERING = "reading", "rendering"
"""What the process says on its error stream when it begins with it."""
TOO_MUCH = f"rendering may take {MEMORY_BYTES >> 30} GB; is a row very long, or does the template repeat a text?"
_TOO_LONG = {
    READING: "reading the tokenizer and the rows takes longer than {seconds:g} s; is a row very long?",
    RENDERING: (
        "the chat template takes too long: it was still rendering after {seconds:g} s and was stopped; "
        "look for a loop over a large range in it"
    ),
}


class PreviewRequest(HandedFile):
    """Which rows are shown, and how they are read."""

    data: str
    """A directory as a fileset is laid out, or one data file."""
    model: str
    """Directory with `TOKENIZER_FILES`."""
    chat_template: str
    """"" = none; conversations are refused then."""
    sequence_limit: int
    rows: int
    """The first so many of the training rows."""
    rules: RowRules
    seconds: float = SECONDS


def rules_of(
    dialect: str,
    *,
    text_field: str | None = None,
    apply_chat_template: bool | None = None,
    prompt_template: str | None = None,
) -> RowRules:
    """How a dialect's job reads rows, with what its `dataset` section says; None = its default.

    DataError for a field that the dialect does not have.
    """
    if dialect == "unsloth":
        if prompt_template is not None:
            raise DataError("prompt_template: unsloth has none; name one key in text_field, or leave it to automodel")
        return RowRules(
            text_field="text" if text_field is None else text_field,
            conversations=bool(apply_chat_template),
            columns=False,
        )
    for field, given in (("text_field", text_field), ("apply_chat_template", apply_chat_template)):
        if given is not None:
            raise DataError(f"{field}: automodel has none, only unsloth; leave it out, or name that dialect")
    return RowRules(prompt_template=prompt_template or "")


def run(request: PreviewRequest, scratch: Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The rows as `show.show` gives them. Blocking, at most `request.seconds`; the process is gone afterwards.

    The request is written into `scratch`. DataError names file, line and key, or says that the template takes too long;
    EngineError when the process broke down. `environment` None = this process's own.
    """
    path = scratch / "request.json"
    request.write(path)
    command = [sys.executable, "-P", "-m", "tunesmith.data", "preview", str(path)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=request.seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as slow:
        raise _too_long(slow.stderr, request) from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        if done.returncode == -signal.SIGALRM:  # its own clock was faster than ours
            raise _too_long(done.stderr, request) from None
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            raise DataError(f"the preview was ended by {name}, as happens when memory runs out: {TOO_MUCH}") from None
        words = done.stderr.decode(errors="replace").strip().splitlines()
        last = f": {words[-1]}" if words else ""
        raise EngineError(f"the preview's process ended with exit code {done.returncode}{last}") from None
    if "refused" in answer:
        raise DataError(answer["refused"])
    return answer


def need_extra() -> None:
    """DataError with the command that installs what tokenising needs, where it is missing."""
    missing = [name for name in ("jinja2", "tokenizers") if find_spec(name) is None]
    if missing:
        raise DataError(f"rendering rows needs {' and '.join(missing)}: pip install 'tunesmith[data]'")


def as_answer(value: Any) -> str:
    """A dataclass as the line that `run` reads."""
    return json.dumps(asdict(value), ensure_ascii=True)


def as_refusal(message: str) -> str:
    """The line that makes `run` raise DataError."""
    return json.dumps({"refused": message})


def _too_long(said: bytes | None, request: PreviewRequest) -> DataError:
    stage = RENDERING if RENDERING.encode() in (said or b"").split() else READING
    return DataError(_TOO_LONG[stage].format(seconds=request.seconds))
