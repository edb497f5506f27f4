"""Reads what a fileset's checkpoint says about itself: configuration, safetensors headers, chat template."""

from __future__ import annotations

import json
import struct
from typing import Any

from tunesmith.api.models import LinearLayer, ModelSpec
from tunesmith.errors import Invalid
from tunesmith.planning.facts import HEADER_LIMIT, ModelFacts, Tensor, facts, read_header
from tunesmith.store.blobs import Blobs
from tunesmith.store.filesets import Snapshot, StoredFile

TEXT_LIMIT = 64 << 20
"""Bytes that a configuration file may have."""


def read_facts(snapshot: Snapshot, blobs: Blobs) -> ModelFacts:
    """The facts of the checkpoint in `snapshot`; Invalid names the file that is missing or wrong. Blocking."""
    by_path = {file.path: file for file in snapshot.files}
    if not by_path:
        raise Invalid(f"fileset {snapshot.fileset} has no files: upload a checkpoint with safetensors weights")
    weights = [file for path, file in by_path.items() if path.endswith(".safetensors") and "/" not in path]
    if not weights:
        raise Invalid(f"fileset {snapshot.fileset} has no *.safetensors at its root{_instead(by_path)}")
    for needed in ("config.json", "tokenizer.json"):
        if needed not in by_path:
            raise Invalid(f"fileset {snapshot.fileset} has no {needed} at its root; upload the whole checkpoint")
    tensors: dict[str, Tensor] = {}
    for file in weights:
        tensors.update(_header(file, blobs))
    return facts(_json(by_path["config.json"], blobs), tensors, _chat_template(by_path, blobs))


def as_spec(known: ModelFacts, chat_template: str) -> ModelSpec:
    """The facts as the wire shows them; `chat_template` from the fileset's metadata wins over the checkpoint's."""
    template = chat_template or known.chat_template
    return ModelSpec(
        context_size=known.context_size,
        is_chat=bool(template),
        checkpoint_model_name=known.checkpoint_model_name,
        family=known.family,
        num_layers=known.num_layers,
        hidden_size=known.hidden_size,
        num_attention_heads=known.num_attention_heads,
        num_kv_heads=known.num_kv_heads,
        ffn_hidden_size=known.ffn_hidden_size,
        vocab_size=known.vocab_size,
        tied_embeddings=known.tied_embeddings,
        gated_mlp=known.gated_mlp,
        base_num_parameters=known.parameters,
        precision=known.precision,
        linear_layers=[
            LinearLayer(name=each.name, in_features=each.in_features, out_features=each.out_features)
            for each in known.linears
        ],
        chat_template=template or None,
    )


def _header(file: StoredFile, blobs: Blobs) -> dict[str, Tensor]:
    with blobs.path(file.digest).open("rb") as source:
        head = source.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if length <= HEADER_LIMIT:
            head += source.read(length)
    return read_header(head, file.path)


def _chat_template(by_path: dict[str, StoredFile], blobs: Blobs) -> str:
    """chat_template.jinja, else the one in tokenizer_config.json (of several named ones, `default`)."""
    if "chat_template.jinja" in by_path:
        return _text(by_path["chat_template.jinja"], blobs)
    if "tokenizer_config.json" not in by_path:
        return ""
    template = _json(by_path["tokenizer_config.json"], blobs).get("chat_template") or ""
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default") or ""
    return str(template)


def _json(file: StoredFile, blobs: Blobs) -> dict[str, Any]:
    try:
        value = json.loads(_text(file, blobs))
    except ValueError as error:
        raise Invalid(f"{file.path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise Invalid(f"{file.path}: must be a JSON object")
    return value


def _text(file: StoredFile, blobs: Blobs) -> str:
    if file.size > TEXT_LIMIT:
        raise Invalid(f"{file.path}: {file.size:,} bytes is more than a configuration file may have ({TEXT_LIMIT:,})")
    try:
        return blobs.path(file.digest).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{file.path}: not UTF-8 ({error})") from None


def _instead(by_path: dict[str, StoredFile]) -> str:
    if any(path.lower().endswith(".gguf") for path in by_path):
        return "; GGUF files cannot be fine-tuned: upload the original safetensors checkpoint"
    return f"; it holds {', '.join(sorted(by_path)[:5])}"
