"""The real application on a loopback port, and a small checkpoint to feed it, for tests of the wire."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import uvicorn
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from tunesmith.control.services import Services
from tunesmith.server.app import create_app
from tunesmith.server.main import Server
from tunesmith.settings import Settings

FILES = "/apis/files/v2/workspaces/default/filesets"
MODELS = "/apis/models/v2/workspaces/default/models"
ADAPTERS = "/apis/models/v2/workspaces/default/adapters"
JOBS = "/apis/jobs/v2/workspaces/default/jobs"
AUTOMODEL = "/apis/customization/v2/workspaces/default/automodel/jobs"
CONFIGS = "/apis/models/v2/workspaces/default/deployment-configs"
DEPLOYMENTS = "/apis/models/v2/workspaces/default/deployments"
OPENAI = "/apis/inference-gateway/v2/workspaces/default/openai/-/v1"
PATIENCE_SECONDS = 60.0


class Prompt(Server):
    """Stops when it is told to, where uvicorn looks ten times a second."""

    async def main_loop(self) -> None:
        """Wait to be told."""
        self.loop, self.told = asyncio.get_running_loop(), asyncio.Event()
        await self.on_tick(0)
        await self.told.wait()

    def stop(self) -> None:
        """Tell it, from any thread; one that has stopped has nothing to be told."""
        self.should_exit = True
        if self.started and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.told.set)


class LiveServer:
    """The application in a thread of its own, from `__enter__` to `__exit__`."""

    def __init__(self, settings: Settings) -> None:
        config = uvicorn.Config(create_app(settings), port=0, log_config=None, access_log=False, lifespan="on")
        self.server = Prompt(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        eventually(lambda: self.server.started or not self.thread.is_alive(), "the server to start")
        assert self.server.started
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=30)
        return self

    @property
    def services(self) -> Services:
        """The rooms behind it."""
        found: Services = self.server.config.app.state.services
        return found

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.server.stop()
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()


def eventually(true: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS, every: float = 0.02) -> Any:
    """What `true` returns once it is true; fails after a deadline, naming `what` was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := true():
            return value
        time.sleep(every)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


@dataclass
class Wire:
    """The calls of a user, as raw HTTP."""

    http: httpx.Client
    seen: list[str] = field(default_factory=list)

    def fileset(self, name: str, files: dict[str, bytes]) -> None:
        """Make a fileset with these files."""
        answer = self.http.post(FILES, json={"name": name})
        assert answer.status_code == 200, answer.text
        for path, content in files.items():
            answer = self.http.put(f"{FILES}/{name}/-/{path}", content=content)
            assert answer.status_code == 200, answer.text

    def model(self, name: str = "base", files: dict[str, bytes] | None = None) -> dict[str, Any]:
        """Make a model entity over a fileset of the same name, whose checkpoint has been read."""
        self.fileset(name, checkpoint() if files is None else files)
        answer = self.http.post(MODELS, json={"name": name, "fileset": f"default/{name}"})
        assert answer.status_code == 201, answer.text
        return self.analysed(name)

    def analysed(self, name: str) -> dict[str, Any]:
        """The model once its checkpoint has been read, or found unreadable."""

        def read() -> dict[str, Any] | None:
            model = self.http.get(f"{MODELS}/{name}").json()
            return None if model["custom_fields"].get("spec_status") == "pending" else model

        found: dict[str, Any] = eventually(read, f"model {name} to be analysed")
        return found

    def dataset(self, name: str = "rows", behaviour: str = "finish", rows: int = 40) -> None:
        """Make a data set of prompt/completion rows; `behaviour` is for the small trainer."""
        lines = b"".join(json.dumps({"prompt": f"w{i}", "completion": "w1 w2"}).encode() + b"\n" for i in range(rows))
        self.fileset(name, {"train.jsonl": lines, "behaviour.txt": behaviour.encode()})

    def submit(self, name: str = "job", **changes: Any) -> httpx.Response:
        """Submit a job on `base` and `rows`; changes are merged into the spec's sections."""
        spec: dict[str, Any] = {"model": "base", "dataset": {"training": "rows"}, "training": {}}
        return self.http.post(AUTOMODEL, json={"name": name, "spec": {**spec, **changes}})

    def state(self, name: str = "job") -> dict[str, Any]:
        """The job's status."""
        answer = self.http.get(f"{JOBS}/{name}/status")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait(self, name: str = "job", *statuses: str) -> dict[str, Any]:
        """The job's status once it is one of `statuses` (default: final)."""
        wanted = statuses or ("completed", "error", "cancelled")
        eventually(lambda: self.state(name)["status"] in wanted, f"job {name} to be {' or '.join(wanted)}")
        return self.state(name)


LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj")


def checkpoint(hidden: int = 8, layers: int = 2, vocabulary: int = 64) -> dict[str, bytes]:
    """A checkpoint that says all it has to say and whose weights are zeros: enough for everything but training."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 2 * hidden,
        "vocab_size": vocabulary,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
        "bos_token_id": 1,
    }
    shapes = {"model.embed_tokens.weight": [vocabulary, hidden], "model.norm.weight": [hidden]}
    for layer in range(layers):
        for name in LAYERS:
            shapes[f"model.layers.{layer}.self_attn.{name}.weight"] = [hidden, hidden]
    words = {"</s>": 0, "<s>": 1, "<unk>": 2, **{f"w{i}": i + 3 for i in range(vocabulary - 3)}}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(["</s>", "<s>"])
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps({"eos_token": "</s>", "bos_token": "<s>"}).encode(),
        "model.safetensors": safetensors(shapes),
    }


def adapter_files(hidden: int = 8, layers: int = 2, rank: int = 4, **config: Any) -> dict[str, bytes]:
    """A PEFT adapter of zeros on the attention of `checkpoint()`; further keys for its configuration."""
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "bias": "none", "target_modules": list(LAYERS), **config}
    shapes: dict[str, list[int]] = {}
    for layer in range(layers):
        for name in LAYERS:
            module = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            shapes[f"{module}.lora_A.weight"] = [rank, hidden]
            shapes[f"{module}.lora_B.weight"] = [hidden, rank]
    return {"adapter_config.json": json.dumps(said).encode(), "adapter_model.safetensors": safetensors(shapes)}


def safetensors(shapes: dict[str, list[int]]) -> bytes:
    """A safetensors file of zeros in bf16."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + bytes(end)


def settings(tmp_path: Path) -> Settings:
    """Settings over a data directory of the test's own."""
    return Settings(data_dir=tmp_path / "data", port=0)
