"""The result of a run: `artifact/` with the adapter in PEFT's format, a probe, and digests of all files.

The probe says what the trained model answers on one input, so that a server can prove that it serves these weights.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tunesmith.data.store import Rows
from tunesmith.handoff.events import ArtifactFile
from tunesmith.model.head import Head, hidden_states
from tunesmith.model.load import Compute
from tunesmith.model.peft_files import AdapterWeights, write_adapter
from tunesmith.train.checkpoint import publish

ARTIFACT = "artifact"
PROBE_FILE = "tunesmith_probe.json"
PROBE_TOKENS, PROBE_ENTRIES = 32, 8
"""Longest prompt of a probe, and how many of the most likely next tokens it lists."""

READ_ONLY = 0o444


def probe(model: nn.Module, head: Head, ids: Sequence[int], compute: Compute) -> dict[str, object]:
    """The model's most likely next tokens after `ids`, with their log-probabilities in nats."""
    model.eval()
    device = head.weight_VH.device
    with torch.no_grad():
        hidden_BTH = hidden_states(model, torch.tensor([list(ids)], device=device))
        logprob_V: Tensor = head.logits(hidden_BTH[0, -1:])[0].log_softmax(-1)
    top = logprob_V.topk(min(PROBE_ENTRIES, len(logprob_V)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return {"prompt_ids": list(ids), "compute": compute, "top": [[token, value] for token, value in pairs]}


def probe_prompt(rows: Rows) -> list[int]:
    """What the probe asks: the first tokens of the first row."""
    return [int(token) for token in rows.ids(0)[:PROBE_TOKENS]]


def export(
    run: Path, weights: AdapterWeights, model_modules: list[str], answers: dict[str, object]
) -> tuple[ArtifactFile, ...]:
    """Write `artifact/` whole, each file flushed and read-only; returns the files with their digests."""
    final = run / ARTIFACT
    temporary = run / f".{ARTIFACT}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    write_adapter(temporary, weights, model_modules)
    (temporary / PROBE_FILE).write_text(json.dumps(answers) + "\n", encoding="utf-8")
    files: list[ArtifactFile] = []
    for path in sorted(temporary.iterdir()):
        path.chmod(READ_ONLY)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files.append(ArtifactFile(path=path.name, digest=digest, size=path.stat().st_size))
    publish(temporary, final)
    return tuple(files)
