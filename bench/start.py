"""How soon a job learns: from its POST to the end of its first optimizer step, over a real server.

    python -m bench.start [--repeats 5]

Warm is what a job meets where another one ran before it; cold is a server without a warm process
(TUNESMITH_WARM_SECONDS=0), beside the imports that a trainer needs, timed in the same run in a process of their own.
The model is a tiny Llama, so what is measured is everything but training.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from bench.api import started
from bench.jobs import AUTOMODEL, FILESETS, JOBS, MODELS, ended, row, wait
from tests.models import tiny_llama

IMPORTS = "import torch, transformers.models.llama.modeling_llama, time; print(time.process_time())"
WARM_SECONDS_AT_MOST, CPU_ABOVE_IMPORTS_AT_MOST = 3.0, 1.0
PATIENCE_SECONDS = 300


def main() -> None:
    """Measure both, print."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--repeats", type=int, default=5)
    repeats = asked.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        tiny_llama(base)
        with platform(Path(folder) / "warm", 300) as (http, runs):
            furnish(http, base)
            first_step(http, runs, "before")
            warm = [first_step(http, runs, f"warm-{number}") for number in range(repeats)]
        with platform(Path(folder) / "cold", 0) as (http, runs):
            furnish(http, base)
            first_step(http, runs, "before")  # bytecode and files are read once
            imports, cold = [], []
            for number in range(repeats):
                imports.append(imports_cpu_seconds())
                cold.append(first_step(http, runs, f"cold-{number}"))
    row(f"warm: POST to first step, p50 (wanted: at most {WARM_SECONDS_AT_MOST:g})", middle(warm, 0), "s")
    row("warm: of the trainer's process, p50", middle(warm, 1), "CPU-s")
    row("cold: POST to first step, p50", middle(cold, 0), "s")
    row("cold: of the trainer's process, p50", middle(cold, 1), "CPU-s")
    row("      the imports alone, p50", statistics.median(imports), "CPU-s")
    above = middle(cold, 1) - statistics.median(imports)
    row(f"      above the imports (wanted: at most {CPU_ABOVE_IMPORTS_AT_MOST:g})", above, "CPU-s")


@contextmanager
def platform(data_dir: Path, warm_seconds: int) -> Iterator[tuple[httpx.Client, Path]]:
    """A server of its own; its client and where its runs lie."""
    command = [sys.executable, "-m", "tunesmith.cli.main", "up", "--data-dir", str(data_dir), "--port"]
    os.environ["TUNESMITH_WARM_SECONDS"] = str(warm_seconds)
    with started(command) as (url, _), httpx.Client(base_url=url, timeout=60) as http:
        yield http, data_dir / "runs"


def furnish(http: httpx.Client, base: Path) -> None:
    """The model and some rows."""
    rows = b'{"prompt": "hello world", "completion": "how are you today?"}\n' * 64
    files = {"base": {path.name: path.read_bytes() for path in base.iterdir()}, "rows": {"train.jsonl": rows}}
    for name, contents in files.items():
        http.post(FILESETS, json={"name": name}).raise_for_status()
        for path, content in contents.items():
            http.put(f"{FILESETS}/{name}/-/{path}", content=content).raise_for_status()
    http.post(MODELS, json={"name": "base", "fileset": "default/base"}).raise_for_status()
    wait(lambda: http.get(f"{MODELS}/base").json()["spec"], 30)


def first_step(http: httpx.Client, runs: Path, name: str) -> tuple[float, float]:
    """Seconds from the POST of a job to the end of its first step, and CPU-seconds of its trainer until then."""
    training = {"training_type": "sft", "finetuning_type": "lora"}
    spec = {"model": "base", "dataset": {"training": "rows"}, "training": training, "schedule": {"epochs": 50}}
    posted = time.time()
    http.post(AUTOMODEL, json={"name": name, "spec": spec}).raise_for_status()
    run = runs / http.get(f"{JOBS}/{name}").json()["id"]
    said: list[float] = []

    def stepped() -> bool:
        path = run / "events.1.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        said[:] = [event["at"] for event in map(json.loads, lines[:50]) if event["kind"] == "progress"][:1]
        if any(event.startswith(b'{"kind":"failed"') for event in lines):
            raise SystemExit(f"the job failed: {lines[-1]!r}")
        return bool(said)

    wait(stepped, PATIENCE_SECONDS, every=0.01)
    keeper = psutil.Process(json.loads((run / "train.1.keeper.json").read_bytes())["pid"])
    times = [child.cpu_times() for child in keeper.children()]
    http.post(f"{JOBS}/{name}/cancel")
    ended(http, name)
    return said[0] - posted, sum(each.user + each.system for each in times)


def imports_cpu_seconds() -> float:
    """What importing torch and the model's class costs by itself."""
    done = subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True)
    return float(done.stdout)


def middle(found: list[tuple[float, float]], part: int) -> float:
    """The median of one of the two."""
    return statistics.median(each[part] for each in found)


if __name__ == "__main__":
    main()
