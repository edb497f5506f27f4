"""Reads what a fileset's checkpoint says about itself: configuration, safetensors headers, chat template.

Only heads of files are read, so a remote checkpoint is understood without its weights.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tunesmith.api.filesets import HuggingFaceStorage, NgcStorage, ToolCalling
from tunesmith.api.models import LinearLayer, ModelSpec, SlidingWindowConfig, ToolCallConfig
from tunesmith.control.contents import Contents
from tunesmith.errors import Invalid
from tunesmith.handoff.peft import CONFIG_FILE as ADAPTER_CONFIG
from tunesmith.planning.facts import ModelFacts, facts
from tunesmith.planning.headers import HEADER_LIMIT, INDEX, Tensor, read_header, weight_files
from tunesmith.store.filesets import Snapshot, StoredFile

TEXT_LIMIT = 64 << 20
"""Bytes that a configuration file may have."""
HEAD_BYTES = 1 << 20
"""Read of a weight file at first: the whole header of nearly all."""
HEADERS_LIMIT = 4 * HEADER_LIMIT
"""Bytes of headers that a checkpoint may have in all its files."""
AT_ONCE = 4
"""Heads of files on their way in."""

ByPath = Mapping[str, StoredFile]


async def read_facts(snapshot: Snapshot, contents: Contents, names: Iterable[str] = ()) -> ModelFacts:
    """The facts of the checkpoint in `snapshot`; Invalid names the file that is missing or wrong, and the way out.

    `names` are what the model is called. Upstream or Unavailable when a remote storage does not answer.
    """
    by_path = {file.path: file for file in snapshot.files}
    _refuse_what_is_no_checkpoint(snapshot.fileset, by_path)
    reader = _Reader(snapshot, contents, by_path)
    index = await reader.json(INDEX) if INDEX in by_path else None
    tensors = await reader.headers(weight_files(by_path.keys(), index))
    config = await reader.json("config.json")
    template = await reader.chat_template()
    called = (*names, *_remote_names(snapshot))
    return await asyncio.to_thread(facts, config, tensors, template, names=called, files=tuple(by_path))


def as_spec(known: ModelFacts, calling: ToolCalling | None = None) -> ModelSpec:
    """The facts as the wire shows them; what the fileset's metadata say about conversations and tools wins."""
    calling = calling or ToolCalling()
    template = calling.chat_template or known.chat_template
    given = calling.model_dump(exclude_none=True, exclude={"chat_template"})
    return ModelSpec(
        context_size=known.context_size,
        is_chat=bool(template),
        is_embedding_model=known.is_embedding,
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
        moe_config=known.moe,
        mamba_config=known.mamba,
        sliding_window_config=SlidingWindowConfig(window_size=known.sliding_window) if known.sliding_window else None,
        linear_layers=[
            LinearLayer(name=each.name, in_features=each.in_features, out_features=each.out_features)
            for each in known.linears
        ],
        chat_template=template or None,
        tool_call_config=ToolCallConfig.model_validate(given) if given else None,
        minimum_gpus_all_weights=known.minimum_gpus_all_weights,
        minimum_gpus_lora=known.minimum_gpus_lora,
    )


def refuse_without_tokenizer(snapshot: Snapshot) -> None:
    """Invalid for a checkpoint whose rows could not be turned into tokens: training needs tokenizer.json."""
    if not any(file.path == "tokenizer.json" for file in snapshot.files):
        raise Invalid(
            f"fileset {snapshot.fileset} has no tokenizer.json at its root; upload the whole checkpoint (a tokenizer "
            "in an older form is converted by transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...))"
        )


async def read_header_of(snapshot: Snapshot, contents: Contents, file: StoredFile) -> dict[str, Tensor]:
    """The tensors of a safetensors file; Invalid when it is none."""
    return await asyncio.to_thread(read_header, await _head(snapshot, contents, file), file.path, file.size)


async def _head(snapshot: Snapshot, contents: Contents, file: StoredFile) -> bytes:
    """The bytes that hold a safetensors file's header; fewer when the file has no such header."""
    head = await contents.read(snapshot, file, 0, min(HEAD_BYTES, file.size))
    length = struct.unpack("<Q", head[:8])[0] if len(head) >= 8 else 0
    if len(head) < 8 + length <= 8 + HEADER_LIMIT and 8 + length <= file.size:
        head += await contents.read(snapshot, file, len(head), 8 + length - len(head))
    return head


class _Reader:
    """The files of one checkpoint."""

    def __init__(self, snapshot: Snapshot, contents: Contents, by_path: ByPath) -> None:
        self.snapshot = snapshot
        self.contents = contents
        self.by_path = by_path
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._read = 0
        """Bytes of headers so far."""

    async def headers(self, paths: Sequence[str]) -> dict[str, Tensor] | None:
        """All tensors of the weight files; None without any."""
        each = await asyncio.gather(*(self._header(self.by_path[path]) for path in paths))
        return {name: tensor for header in each for name, tensor in header.items()} if paths else None

    async def _header(self, file: StoredFile) -> dict[str, Tensor]:
        async with self._at_once:
            head = await _head(self.snapshot, self.contents, file)
            self._read += len(head)
            if self._read > HEADERS_LIMIT:
                raise Invalid(
                    f"fileset {self.snapshot.fileset}: the headers of its weights are more than {HEADERS_LIMIT:,} bytes"
                )
            return await asyncio.to_thread(read_header, head, file.path, file.size)

    async def chat_template(self) -> str:
        """chat_template.jinja, else the one in tokenizer_config.json (of several named ones, `default`)."""
        if "chat_template.jinja" in self.by_path:
            return await self.text("chat_template.jinja")
        for path in ("tokenizer_config.json", "chat_template.json"):
            template = (await self.json(path)).get("chat_template") if path in self.by_path else None
            if isinstance(template, list):
                named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
                template = named.get("default")
            if template and isinstance(template, str):
                return template
        return ""

    async def json(self, path: str) -> dict[str, Any]:
        """A JSON object; Invalid when it is none."""
        text = await self.text(path)
        try:
            value = await asyncio.to_thread(json.loads, text)
        except (ValueError, RecursionError) as error:
            raise Invalid(f"{path}: not JSON ({str(error)[:200]})") from None
        if not isinstance(value, dict):
            raise Invalid(f"{path}: must be a JSON object")
        return value

    async def text(self, path: str) -> str:
        """A text file; Invalid when it is too large or not UTF-8."""
        file = self.by_path[path]
        if file.size > TEXT_LIMIT:
            raise Invalid(f"{path}: {file.size:,} bytes is more than a configuration file may have ({TEXT_LIMIT:,})")
        try:
            return (await self.contents.read(self.snapshot, file)).decode()
        except UnicodeDecodeError as error:
            raise Invalid(f"{path}: not UTF-8 ({error})") from None


def _refuse_what_is_no_checkpoint(fileset: str, by_path: ByPath) -> None:
    """Invalid names what the fileset holds instead of a configuration and weights at its root, and the way out."""
    root = [path for path in by_path if "/" not in path]
    if not by_path:
        raise Invalid(f"fileset {fileset} has no files: upload a checkpoint with safetensors weights")
    if any(path.endswith(".safetensors") and path != "adapter_model.safetensors" for path in root) or any(
        path.startswith("pytorch_model") and path.endswith(".bin") for path in root
    ):
        if "config.json" not in by_path:
            raise Invalid(f"fileset {fileset} has no config.json at its root; upload the whole checkpoint")
        return
    raise Invalid(f"fileset {fileset} has no *.safetensors at its root{_instead(by_path, root)}")


def _instead(by_path: ByPath, root: list[str]) -> str:
    if any(path.lower().endswith(".gguf") for path in by_path):
        return "; GGUF files cannot be fine-tuned: upload the original safetensors checkpoint"
    if ADAPTER_CONFIG in root:
        return (
            "; it holds an adapter: create it under its base model (POST .../models/{base}/adapters), not as a model "
            "of its own"
        )
    if pickled := [path for path in root if path.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"))]:
        return (
            f"; {min(pickled)} is not a checkpoint that is loaded without running its code: save it with "
            "transformers' save_pretrained (model.safetensors, or pytorch_model.bin) and upload that"
        )
    deeper = {path.rpartition("/")[0] for path in by_path if path.endswith("/config.json")}
    if len(deeper) == 1:
        (where,) = deeper
        return f"; its checkpoint lies in '{where}/': upload the content of that directory to the fileset's root"
    return f"; it holds {', '.join(sorted(by_path)[:5])}"


def _remote_names(snapshot: Snapshot) -> tuple[str, ...]:
    match snapshot.storage:
        case HuggingFaceStorage(repo_id=name) | NgcStorage(target=name):
            return (name,)
        case _:
            return ()
