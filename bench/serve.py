"""How fast the embedded engine answers over HTTP, beside plain transformers on the same machine in the same run.

    python bench/serve.py                      a random 20M-parameter Llama, made on the spot
    python bench/serve.py --model DIR          a checkpoint with tokenizer.json

Prints output tokens per second for 1 and 16 requests at a time (base alone, and over four random rank-16 adapters),
time to the first token, resident memory, start-up time, and two ratios: against `transformers.generate`, one request at
a time (the peer), and for one request against the memory bandwidth (the limit: each token reads all weights once).

Other work on the machine hurts whoever has more threads, so the peer is the best of one thread and `--threads`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import torch

from tunesmith.handoff.deployment import DEPLOYMENT_FILE, SERVING_FILE, Deployment, Serving

PROMPT_TOKENS = 128
ADAPTERS = 4
RANK = 16
START_SECONDS = 300
BASE = "bench/base"
SHAPE = {
    "vocab_size": 8192,
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.05,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help="a checkpoint's folder; default: a random small Llama")
    parser.add_argument("--tokens", type=int, default=64, help="output tokens per request")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "inputs").mkdir()
        model_dir = directory / "inputs" / "model"
        if chosen.model:
            model_dir.symlink_to(chosen.model.resolve())
        else:
            make_model(model_dir)
        peer = max(measure_peer(model_dir, chosen.tokens, threads) for threads in {1, chosen.threads})
        torch.set_num_threads(1)  # the server has the machine to itself from here on
        limit = memory_bandwidth() / weight_bytes(model_dir)
        with Server(directory, chosen.threads) as server:
            print(f"start-up {server.seconds_to_start:.1f} s, resident {server.resident_mib():.0f} MiB")
            adapters = [server.load(write_adapter(model_dir, directory / f"adapter{i}", i)) for i in range(ADAPTERS)]
            server.measure(1, 8, [BASE])  # warm
            one = server.measure(1, chosen.tokens, [BASE])
            many = server.measure(16, chosen.tokens, [BASE])
            mixed = server.measure(16, chosen.tokens, adapters)
            for name, result in (("1", one), ("16", many), (f"16 over {ADAPTERS} adapters", mixed)):
                print(f"{name:>20} at a time: {result.rate:7.1f} tokens/s, first token after {result.first:.2f} s")
            print(f"resident after it {server.resident_mib():.0f} MiB")
        print(f"peer, generate one at a time: {peer:.1f} tokens/s -> ratio {one.rate / peer:.2f} at 1, ", end="")
        print(f"{many.rate / peer:.2f} at 16, {mixed.rate / peer:.2f} at 16 over adapters")
        print(f"limit by memory bandwidth at 1: {limit:.0f} tokens/s -> reached {one.rate / limit:.0%}")


@dataclass(frozen=True, slots=True)
class Result:
    """Of several requests at once."""

    rate: float
    """Output tokens per second, all requests together."""
    first: float
    """Seconds to the first token, mean over the requests."""


class Server:
    """The real process over `directory`."""

    def __init__(self, directory: Path, threads: int) -> None:
        deployment = Deployment(served_model=BASE, compute="auto", chat_template="", max_batch=16)
        deployment.write(directory / DEPLOYMENT_FILE)
        began = time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "tunesmith.serve", str(directory)]
        self._process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        wait, end = threading.Event(), began + START_SECONDS
        while not (directory / SERVING_FILE).exists():
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit("the server did not start; run `python -m tunesmith.serve` by hand to see why")
            wait.wait(0.02)
        self.seconds_to_start = time.monotonic() - began
        serving = Serving.read(directory / SERVING_FILE)
        self._http = httpx.Client(base_url=f"http://{serving.host}:{serving.port}", timeout=600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait()

    def resident_mib(self) -> float:
        """Resident set of the process."""
        shown = subprocess.run(["ps", "-o", "rss=", "-p", str(self._process.pid)], capture_output=True, check=True)
        return int(shown.stdout) / 1024

    def load(self, adapter: Path) -> str:
        """Load it under its folder's name."""
        body = {"lora_name": adapter.name, "lora_path": str(adapter)}
        self._http.post("/v1/load_lora_adapter", json=body).raise_for_status()
        return adapter.name

    def measure(self, requests: int, tokens: int, models: list[str]) -> Result:
        """All requests at once, dealt over `models`."""
        began = time.monotonic()
        with ThreadPoolExecutor(requests) as pool:
            firsts = list(pool.map(lambda i: self._stream(i, tokens, models[i % len(models)]), range(requests)))
        return Result(requests * tokens / (time.monotonic() - began), sum(firsts) / requests)

    def _stream(self, number: int, tokens: int, model: str) -> float:
        """Seconds until the first event; the whole answer is read."""
        body: dict[str, Any] = {
            "model": model,
            "prompt": prompt(number),
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
        }
        began, first = time.monotonic(), 0.0
        with self._http.stream("POST", "/v1/completions", json=body) as reply:
            reply.raise_for_status()
            for line in reply.iter_lines():
                if line and not first:
                    first = time.monotonic() - began
        return first


def prompt(number: int) -> list[int]:
    """Token ids, different for each request."""
    return [100 + (number * 7919 + place * 104729) % 7000 for place in range(PROMPT_TOKENS)]


def make_model(directory: Path) -> None:
    """A random Llama with a tokenizer of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    directory.mkdir()
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).bfloat16().save_pretrained(directory)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {**{letter: i for i, letter in enumerate(letters)}, **{f"<{i}>": i for i in range(256, 8192)}}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))


def write_adapter(model_dir: Path, directory: Path, seed: int) -> Path:
    """Random rank-16 factors on every linear layer but the head, in PEFT's format."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    directory.mkdir()
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for file in model_dir.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118 - safetensors' own object
                if key.endswith("_proj.weight"):
                    outputs, inputs = weights.get_slice(key).get_shape()
                    name = f"base_model.model.{key.removesuffix('.weight')}"
                    tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, inputs, generator=generator) * 0.02
                    tensors[f"{name}.lora_B.weight"] = torch.randn(outputs, RANK, generator=generator) * 0.02
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "base_model_name_or_path": BASE}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


def measure_peer(model_dir: Path, tokens: int, threads: int) -> float:
    """Output tokens per second of transformers' own `generate`, one request at a time, in bf16 and in process."""
    from tunesmith.model.load import load_model, resolve_compute

    torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    model: Any = load_model(model_dir, resolve_compute("auto", cpu), "sdpa", cpu)
    ids = torch.tensor([prompt(0)])
    settings = {"attention_mask": torch.ones_like(ids), "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    model.generate(ids, max_new_tokens=4, **settings)
    began = time.monotonic()
    made = model.generate(ids, max_new_tokens=tokens, **settings).shape[1] - PROMPT_TOKENS
    return made / (time.monotonic() - began)


def memory_bandwidth() -> float:
    """Bytes per second that a sum over 512 MiB reads; the best of five."""
    block, best = torch.ones(1 << 27), 0.0
    for _ in range(5):
        began = time.monotonic()
        block.sum()
        best = max(best, block.nbytes / (time.monotonic() - began))
    return best


def weight_bytes(model_dir: Path) -> int:
    """Bytes of the checkpoint's weights (an untied embedding is counted, though a token reads one row of it)."""
    return sum(file.stat().st_size for file in model_dir.glob("*.safetensors"))


if __name__ == "__main__":
    main()
