"""The result of a run: `artifact/` with the adapter or the model, what it was made from, a probe, and digests of all.

An adapter is in PEFT's format, a model a checkpoint as transformers writes it, tokenizer and chat template included.
The probe says what the trained model answers to one prompt, computed from the weights as they are stored;
`handoff.probe` has how a server holds itself against it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tunesmith.data.store import Rows
from tunesmith.handoff.base import COMPUTED, STORED, Compute, Stored
from tunesmith.handoff.crash import crash_at
from tunesmith.handoff.events import ARTIFACT, ArtifactFile
from tunesmith.handoff.inputs import MODEL
from tunesmith.handoff.probe import PROBE_FILE, Probe, ProbedToken
from tunesmith.model.head import Head, hidden_states
from tunesmith.model.load import DTYPES, load_model
from tunesmith.train.disk import sha256_of, written
from tunesmith.train.job import Job, Method
from tunesmith.train.provenance import MODEL_CARD, PROVENANCE_FILE, Provenance, model_card

PROBE_TOKENS, PROBE_ENTRIES = 256, 8
"""Longest prompt of a probe, and how many of the most likely next tokens it lists."""

SHARD = "5GB"
"""Most bytes of a file of weights."""
READ_ONLY = 0o444

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "generation_config.json",
)
"""Taken over from the base as they are."""
TEMPLATE_FILE = "chat_template.jinja"


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


def stored_as(job: Job) -> Stored:
    """Type of the weights in the artifact; adapters are always kept in float32."""
    if job.plan.result.form == "adapter":
        return "float32"
    wanted = job.plan.result.dtype
    return _type_of_base(job.run / MODEL) if wanted == "base" else wanted


def export(
    job: Job, method: Method, asked: Sequence[int], base_V: Tensor, made: Provenance
) -> tuple[ArtifactFile, ...]:
    """Write `artifact/` whole, each file flushed and read-only; returns the files with their digests.

    The same weights give the same bytes, so it does no harm to export again. Afterwards a student that was to become a
    model is used up.
    """
    adapter = job.plan.result.form == "adapter"
    model = method.student.model if adapter else _settled(job, method, COMPUTED[made.stored_as])
    weights = method.optimizer.masters() if adapter else dict(model.named_parameters())
    with written(job.run / ARTIFACT, sum(tensor.nbytes for tensor in weights.values())) as directory:
        if adapter:
            method.student.write_adapter(directory)
        else:
            # The base's own file is taken over as it is: not all that are published pass transformers' checks.
            model.generation_config = type(model.generation_config).from_model_config(model.config)
            model.save_pretrained(directory, max_shard_size=SHARD)
            _take_over(job, directory)
        crash_at("artifact-half-written")
        _cast(model, made.compute)
        trained_V = next_token(model, Head.of(model), asked)
        probe(asked, made.compute, trained_V, base_V).write(directory / PROBE_FILE)
        made.write(directory / PROVENANCE_FILE)
        (directory / MODEL_CARD).write_text(model_card(made), encoding="utf-8")
        return tuple(_file(path) for path in sorted(directory.iterdir()))


def _settled(job: Job, method: Method, stored: Compute) -> nn.Module:
    """A plain model with the trained weights, in the type they are stored in; the student's own where that can be."""
    student, masters = method.student, method.optimizer.masters()
    if job.plan.adapter:
        for weight in student.model.parameters():  # room for the second copy
            if not weight.requires_grad:
                weight.data = weight.data.new_empty(0)
        model = load_model(job.run / MODEL, stored, job.plan.model.attention, job.device)
    else:
        model = student.model
        _cast(model, stored)
    student.add_to(model, masters)
    return model


def _cast(model: nn.Module, compute: Compute) -> None:
    """The weights alone: buffers, such as the frequencies of rotary embeddings, stay exact."""
    for weight in model.parameters():
        weight.data = weight.data.to(DTYPES[compute])


def _take_over(job: Job, directory: Path) -> None:
    """Tokenizer files of the base, and the chat template that the rows were rendered with."""
    base = job.run / MODEL
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, directory / name)
    if job.plan.data.chat_template:
        (directory / TEMPLATE_FILE).write_text(job.plan.data.chat_template, encoding="utf-8")


def _type_of_base(directory: Path) -> Stored:
    """As config.json says; a checkpoint that is quantised or silent is dequantised to bfloat16."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config") or {}
    named = [each.get(key) for each in (config, text) for key in ("dtype", "torch_dtype")]
    return next((name for name in STORED.values() if name in named), "bfloat16")


def _file(path: Path) -> ArtifactFile:
    path.chmod(READ_ONLY)
    return ArtifactFile(path=path.name, digest=sha256_of(path), size=path.stat().st_size)
