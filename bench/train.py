"""Training speed: our loop against a plain PEFT loop, on the same rows, model, precision, threads and batches.

    python -m bench.train                                       # a small random Llama made on the spot
    python -m bench.train --model DIR --rows train.jsonl        # real weights, real rows

Each side runs in a process of its own, in turns, and says real (unpadded) tokens per second and per CPU-second after
two warm-up steps. The second is the one to trust on a machine that does other work. The PEFT loop is what a careful
person writes: bf16 base weights, autocast, rows padded to the longest of the step, the model's own loss, no
checkpointing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WARM_UP_STEPS = 2
SMALL = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8, "vocab_size": 8192}
ROWS = 400


def main() -> None:
    """Run both sides in turns and print a table."""
    asked = _arguments()
    if asked.side:
        print(json.dumps({"ours": _ours, "peft": _peft}[asked.side](asked.run, asked.steps)))
        return
    with tempfile.TemporaryDirectory() as directory:
        run = _prepared_run(Path(directory) / "run", asked)
        results: dict[str, list[dict[str, float]]] = {"peft": [], "ours": []}
        for _ in range(asked.repeats):
            for side, found in results.items():
                found.append(_measured(side, run, asked))
    print(
        f"{asked.compute}, {asked.threads} threads, {asked.steps} steps of {asked.batch} rows, rank 16, best of "
        f"{asked.repeats}"
    )
    print(f"{'':6}{'tokens/s':>10}{'per CPU-s':>11}{'peak GB':>9}")
    best = {side: {key: max(one[key] for one in found) for key in found[0]} for side, found in results.items()}
    for side, found in best.items():
        peak = min(one["peak_gb"] for one in results[side])
        print(f"{side:6}{found['per_second']:10.0f}{found['per_cpu_second']:11.0f}{peak:9.2f}")
    print(
        "ratio "
        + "".join(
            f"{best['ours'][key] / best['peft'][key]:{width}.2f}"
            for key, width in (("per_second", 10), ("per_cpu_second", 11))
        )
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint directory; default: a small random Llama")
    parser.add_argument("--rows", type=Path, help="JSON lines; default: made-up rows of about 90 tokens")
    parser.add_argument("--compute", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--side", choices=("ours", "peft"), help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(side: str, run: Path, asked: argparse.Namespace) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(asked.threads)}
    if side == "ours":  # as `python -m tunesmith.train` sets it; the peer runs as torch comes
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    command = [sys.executable, "-m", "bench.train", "--side", side, "--run", str(run), "--steps", str(asked.steps)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _prepared_run(run: Path, asked: argparse.Namespace) -> Path:
    from tests.models import tiny_llama
    from tests.plans import plan
    from tunesmith.data.prepare import prepare
    from tunesmith.handoff.plan import FirstOf

    (run / "inputs/data").mkdir(parents=True)
    model = asked.model.resolve() if asked.model else run / "small"
    if not asked.model:
        tiny_llama(model, **SMALL)
    (run / "inputs/model").symlink_to(model)
    (run / "inputs/data/train.jsonl").write_text(asked.rows.read_text() if asked.rows else _made_up_rows())
    template = model / "chat_template.jinja"
    given = plan(
        model={"compute": asked.compute},
        data={"chat_template": template.read_text() if template.exists() else "", "sequence_limit": 2048},
        adapter={"rank": 16, "alpha": 32, "modules": _linears(model)},
        schedule={
            "rows_per_step": asked.batch,
            "tokens_per_pass": 2048,
            "stop": FirstOf(epochs=100, steps=asked.steps + WARM_UP_STEPS),
        },
    )
    given.write(run / "plan.json")
    prepare(run, given, lambda _event: None)
    return run


def _linears(model: Path) -> tuple[str, ...]:
    from tests.models import linear_names

    return linear_names(json.loads((model / "config.json").read_text())["num_hidden_layers"])


def _made_up_rows() -> str:
    draw = random.Random(1)
    return "\n".join(json.dumps({"prompt": _letters(draw, 60), "completion": _letters(draw, 30)}) for _ in range(ROWS))


def _letters(draw: random.Random, about: int) -> str:
    return "".join(draw.choices("abcdefghijklmnop", k=draw.randint(about // 2, about * 3 // 2)))


def _clock() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime + used.ru_stime


def _rates(tokens: int, start: tuple[float, float]) -> dict[str, float]:
    wall, cpu = (after - before for after, before in zip(_clock(), start, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"per_second": tokens / wall, "per_cpu_second": tokens / cpu, "peak_gb": peak}


def _ours(run: Path, steps: int) -> dict[str, float]:
    """The recipe itself, timed through its own progress events."""
    import torch

    from tunesmith.handoff.plan import Plan
    from tunesmith.handoff.prepared import Prepared
    from tunesmith.train.crew import Crew
    from tunesmith.train.loop import Job
    from tunesmith.train.recipes.sft import sft
    from tunesmith.train.signals import Doorbell

    marks: dict[int, tuple[int, tuple[float, float]]] = {}
    rates: dict[str, float] = {}

    def log(event: Any) -> None:
        if event.kind == "progress":
            marks[event.step] = event.tokens, _clock()
        if event.kind == "progress" and event.step == WARM_UP_STEPS + steps:
            before, start = marks[WARM_UP_STEPS]
            rates.update(_rates(event.tokens - before, start))

    prepared = Prepared.read(run / "data.json")
    sft(
        Job(
            run,
            Plan.read(run / "plan.json"),
            prepared,
            torch.device("cpu"),
            log,
            Doorbell(),
            Crew(torch.get_num_threads()),
        )
    )
    return rates


def _peft(run: Path, steps: int) -> dict[str, float]:
    """A plain loop over the same rows in the same steps."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    from tunesmith.data.schedule import rows_of_step
    from tunesmith.data.store import Rows
    from tunesmith.handoff.plan import Plan
    from tunesmith.handoff.prepared import Prepared

    plan, prepared = Plan.read(run / "plan.json"), Prepared.read(run / "data.json")
    rows = Rows(run, prepared.training)
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[plan.model.compute]
    base = AutoModelForCausalLM.from_pretrained(run / "inputs/model", dtype=dtype, attn_implementation="sdpa")
    config = peft.LoraConfig(r=16, lora_alpha=32, target_modules=list(plan.adapter.modules), task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=plan.optimizer.learning_rate)
    tokens, start = 0, _clock()
    for step in range(1, WARM_UP_STEPS + steps + 1):
        if step == WARM_UP_STEPS + 1:
            tokens, start = 0, _clock()
        chosen = rows_of_step(step, len(rows), plan.schedule.rows_per_step, plan.schedule.seed)
        longest = int(rows.lengths[chosen].max())
        ids, labels = torch.zeros(len(chosen), longest, dtype=torch.long), torch.full((len(chosen), longest), -100)
        seen = torch.zeros_like(ids)
        for place, row in enumerate(chosen):
            row_ids, mask = torch.tensor(rows.ids(row).tolist()), torch.tensor(rows.mask(row).tolist())
            ids[place, : len(row_ids)], seen[place, : len(row_ids)] = row_ids, 1
            labels[place, : len(row_ids)] = torch.where(mask == 1, row_ids, -100)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(input_ids=ids, attention_mask=seen, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int(seen.sum())
    return _rates(tokens, start)


if __name__ == "__main__":
    main()
