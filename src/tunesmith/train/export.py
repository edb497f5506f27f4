"""The result of a run: `artifact/` with the adapter in PEFT's format, a probe, and digests of all files.

The probe says what the trained model answers to one prompt; `handoff.probe` has how a server holds itself against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tunesmith.data.store import Rows
from tunesmith.handoff.crash import crash_at
from tunesmith.handoff.events import ArtifactFile
from tunesmith.handoff.probe import PROBE_FILE, Probe, ProbedToken
from tunesmith.model.head import Head, hidden_states
from tunesmith.model.load import Compute
from tunesmith.model.peft_files import AdapterWeights, write_adapter
from tunesmith.train.disk import sha256_of, written

ARTIFACT = "artifact"
PROBE_TOKENS, PROBE_ENTRIES = 256, 8
"""Longest prompt of a probe, and how many of the most likely next tokens it lists."""

READ_ONLY = 0o444


def next_token(model: nn.Module, head: Head, ids: Sequence[int]) -> Tensor:
    """logprob_V in nats of the token after `ids`, without dropout."""
    model.eval()
    with torch.no_grad():
        hidden_BTH = hidden_states(model, torch.tensor([list(ids)], device=head.weight_VH.device))
        return head.logits(hidden_BTH[0, -1:])[0].log_softmax(-1)


def probe(ids: Sequence[int], compute: Compute, trained_V: Tensor, base_V: Tensor) -> Probe:
    """The most likely tokens after `ids` for the trained model, and what the base thinks of them."""
    top = trained_V.topk(min(PROBE_ENTRIES, len(trained_V)))
    tokens = zip(top.indices.tolist(), top.values.tolist(), base_V[top.indices].tolist(), strict=True)
    return Probe(
        prompt_ids=tuple(ids),
        compute=compute,
        top=tuple(ProbedToken(token=token, trained=trained, base=base) for token, trained, base in tokens),
    )


def probe_prompt(rows: Rows) -> list[int]:
    """What the probe asks: the first row up to where training begins, and at least one token."""
    trained_on = rows.mask(0).nonzero()[0]
    return [int(token) for token in rows.ids(0)[: min(max(1, trained_on[0]), PROBE_TOKENS)]]


def export(run: Path, weights: AdapterWeights, model_modules: list[str], probed: Probe) -> tuple[ArtifactFile, ...]:
    """Write `artifact/` whole, each file flushed and read-only; returns the files with their digests.

    The same weights give the same bytes, so it does no harm to export again.
    """
    files: list[ArtifactFile] = []
    tensors = [tensor for pair in weights.modules.values() for tensor in pair]
    with written(run / ARTIFACT, sum(tensor.nbytes for tensor in tensors)) as directory:
        write_adapter(directory, weights, model_modules)
        crash_at("artifact-half-written")
        probed.write(directory / PROBE_FILE)
        for path in sorted(directory.iterdir()):
            path.chmod(READ_ONLY)
            files.append(ArtifactFile(path=path.name, digest=sha256_of(path), size=path.stat().st_size))
    return tuple(files)
