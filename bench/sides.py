"""The sides of the benchmarks of training, each in a process of its own: `python -m bench.sides SIDE RUN STEPS DEVICE`.

A side trains on the very rows of `steps.jsonl`, step by step, and prints as JSON what it took after the warm-up steps.
TRL's sides run in an environment of their own (`bench/peer.py`), where nothing of Tunesmith is installed; so nothing of
it is imported here but inside its own side.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP_STEPS = 2
RANK, ALPHA = 16, 32
PRODUCT = {"cpu": (512, 1), "cuda": (8192, 20)}
"""Size of the measured product's sides, and how many of it are timed together."""
CHECKPOINT_SECONDS = "TUNESMITH_CHECKPOINT_SECONDS"
"""Of ours, so far apart that none is written; the peers are told to write none."""
Found = dict[str, float]
Sequences = list[dict[str, list[int]]]
Side = Callable[[Path, int, str], Found]
"""What trains: of a run, so many steps after the warm-up, on "cpu" or "cuda"."""


class Clock:
    """Marks the ends of steps; rates count from the end of the warm-up to the last mark."""

    def __init__(self, device: str) -> None:
        self._marks: list[tuple[float, float]] = []
        self._on_gpu = device == "cuda"

    def mark(self) -> None:
        """A step is over, also what a GPU was told to do for it."""
        if self._on_gpu:
            import torch

            torch.cuda.synchronize()
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._marks.append((time.perf_counter(), used.ru_utime + used.ru_stime))

    def found(self, tokens_of_steps: list[int]) -> Found:
        """Real tokens per second and per CPU-second, and the most memory that the process held: a GPU's, if on one."""
        start, end = self._marks[WARM_UP_STEPS - 1], self._marks[-1]
        tokens = sum(tokens_of_steps[WARM_UP_STEPS : len(self._marks)])
        return {
            "per_second": tokens / (end[0] - start[0]),
            "per_cpu_second": tokens / (end[1] - start[1]),
            "gb": self._peak() / 2**30,
        }

    def _peak(self) -> int:
        if self._on_gpu:
            import torch

            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def steps_of(run: Path) -> list[Sequences]:
    """The sequences of each step: token ids, labels (-100 where nothing is learned), and the lengths of their rows."""
    return [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]


def tokens_of(steps: list[Sequences]) -> list[int]:
    """Real tokens of each step."""
    return [sum(len(row["input_ids"]) for row in step) for step in steps]


def ours(run: Path, count: int, device: str) -> Found:
    """The recipe itself, timed through its own progress events; it is told to leave before it would export."""
    import torch

    from tunesmith.handoff.plan import Plan
    from tunesmith.handoff.prepared import Prepared
    from tunesmith.handoff.wish import Wish
    from tunesmith.train.crew import Crew
    from tunesmith.train.job import Job
    from tunesmith.train.recipes.sft import sft
    from tunesmith.train.signals import Doorbell

    clock, found = Clock(device), Found()
    tokens, wish = tokens_of(steps_of(run)), run / "wish.json"
    wish.unlink(missing_ok=True)

    def log(event: Any) -> None:
        if event.kind != "progress":
            return
        assert event.tokens == sum(tokens[: event.step]), f"step {event.step} holds other rows than the peers'"
        clock.mark()
        if event.step == WARM_UP_STEPS + count:
            found.update(clock.found(tokens))
            Wish(wish="cancel").write(wish)

    plan, prepared = Plan.read(run / "plan.json"), Prepared.read(run / "data.json")
    crew = Crew(torch.get_num_threads() if device == "cpu" else 1)
    sft(Job(run, plan, prepared, torch.device(device), log, Doorbell(), crew))
    return found


def peft_loop(run: Path, count: int, device: str) -> Found:
    """What a careful person writes: padded to the longest row of a step, the model's own loss, no checkpointing."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    compute = json.loads((run / "plan.json").read_text())["model"]["compute"]
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[compute]
    base = AutoModelForCausalLM.from_pretrained(run / "inputs/model", dtype=dtype, attn_implementation="sdpa")
    model = peft.get_peft_model(base, _lora())
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    clock, steps = Clock(device), steps_of(run)
    for step in steps[: WARM_UP_STEPS + count]:
        longest = max(len(row["input_ids"]) for row in step)
        ids, labels = torch.zeros(len(step), longest, dtype=torch.long), torch.full((len(step), longest), -100)
        seen = torch.zeros_like(ids)
        for place, row in enumerate(step):
            length = len(row["input_ids"])
            ids[place, :length], labels[place, :length] = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
            seen[place, :length] = 1
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(input_ids=ids, attention_mask=seen, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.mark()
    return clock.found(tokens_of(steps))


TRL: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl-flat-bf16": {
        "padding_free": True,
        "max_length": None,
        "gradient_checkpointing": False,
        "model_init_kwargs": {"dtype": "bfloat16"},
    },
    "trl-flat-fp32": {"padding_free": True, "max_length": None, "gradient_checkpointing": False, "bf16": False},
    "trl-single-fp32": {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "gradient_checkpointing": False,
        "bf16": False,
    },
}
"""What SFTConfig is told beyond the rows. `trl` is as its documentation starts it: bf16 autocast, activations computed
twice, rows padded. The others are what could be its best on a processor; `single` passes each row by itself."""
TRL_BY_ATTENTION = {"trl-sdpa": "sdpa", "trl-flash": "flash_attention_2"}
"""Sides that take a run's sequences, adapter, type and passes as ours does, and attention from this implementation."""


def _told(side: str, plan: dict[str, Any], sequences: Sequences) -> dict[str, Any]:
    """What SFTConfig is told so that a step is the run's."""
    if side in TRL:
        return {"per_device_train_batch_size": len(sequences), **TRL[side]}
    per_pass = plan["schedule"]["tokens_per_pass"] // plan["data"]["sequence_limit"]
    half = plan["model"]["compute"] == "bf16"
    return {
        "per_device_train_batch_size": per_pass,
        "gradient_accumulation_steps": len(sequences) // per_pass,
        "gradient_checkpointing": False,
        "bf16": half,
        "max_length": None,
        "padding_free": side == "trl-flash" or plan["data"]["packing"],
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "model_init_kwargs": {
            "dtype": "bfloat16" if half and plan["adapter"] else "float32",  # what is trained has float32 masters
            "attn_implementation": TRL_BY_ATTENTION[side],
        },
    }


def trl(side: str) -> Side:
    """One of TRL's sides."""

    def train(run: Path, count: int, device: str) -> Found:
        import datasets
        from transformers import TrainerCallback
        from trl import SFTConfig, SFTTrainer

        clock, steps = Clock(device), steps_of(run)[: WARM_UP_STEPS + count]
        plan = json.loads((run / "plan.json").read_text())

        class Marks(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                clock.mark()

        config = SFTConfig(
            output_dir=str(run / side),
            num_train_epochs=1,
            use_cpu=device == "cpu",
            train_sampling_strategy="sequential",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **_told(side, plan, steps[0]),
        )
        trainer = SFTTrainer(
            model=str(run / "inputs/model"),
            args=config,
            train_dataset=datasets.Dataset.from_list([sequence for step in steps for sequence in step]),
            peft_config=_lora() if plan["adapter"] else None,
            callbacks=[Marks()],
        )
        trainer.train()
        assert trainer.state.global_step == len(steps), "TRL took other steps than the rows were cut for"
        return clock.found(tokens_of(steps))

    return train


def _lora() -> Any:
    import peft

    return peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")


def matmul(run: Path, count: int, device: str) -> Found:
    """GFLOP per CPU-second of the model's own products, forward and for the input's gradient, in our compute type.

    As many tokens at a time as a step of the run holds on average.
    """
    import torch
    from torch.nn.functional import linear

    plan, config = (json.loads((run / name).read_text()) for name in ("plan.json", "inputs/model/config.json"))
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[plan["model"]["compute"]]
    tokens = tokens_of(steps_of(run))
    mean = min(sum(tokens) // len(tokens), plan["schedule"]["tokens_per_pass"])
    shapes = linear_shapes(config)
    pairs = [
        (torch.randn(mean, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype))
        for outputs, inputs in shapes
    ]
    clock = Clock(device)
    with torch.no_grad():
        for _ in range(WARM_UP_STEPS + count):
            for _ in range(config["num_hidden_layers"]):
                for x, weight in pairs:
                    _ = linear(x, weight) @ weight
            clock.mark()
    flop = 4 * mean * config["num_hidden_layers"] * sum(outputs * inputs for outputs, inputs in shapes)
    found = clock.found([flop] * (WARM_UP_STEPS + count))
    return {"per_cpu_second": found["per_cpu_second"] / 1e9, "per_second": found["per_second"] / 1e9}


def product(run: Path, count: int, device: str) -> Found:
    """Operations a second of one large product in our compute type: what the device could do at best."""
    import torch

    size, times = PRODUCT[device]
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[
        json.loads((run / "plan.json").read_text())["model"]["compute"]
    ]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    clock = Clock(device)
    for _ in range(WARM_UP_STEPS + count):
        for _ in range(times):
            torch.mm(a, b)
        clock.mark()
    return clock.found([times * 2 * size**3] * (WARM_UP_STEPS + count))


def linear_shapes(config: dict[str, Any]) -> list[tuple[int, int]]:
    """(outputs, inputs) of the linear layers in one layer of a Llama."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    keys = config.get("num_key_value_heads", heads) * size
    queries = heads * size
    return [
        (queries, hidden),
        (keys, hidden),
        (keys, hidden),
        (hidden, queries),
        *[(inner, hidden)] * 2,
        (hidden, inner),
    ]


SIDES: dict[str, Side] = {
    "ours": ours,
    "peft": peft_loop,
    "matmul": matmul,
    "product": product,
    **{side: trl(side) for side in (*TRL, *TRL_BY_ATTENTION)},
}


def measured(
    side: str, name: str, python: Path, run: Path, steps: int, *, device: str = "cpu", threads: int | None = None
) -> Found:
    """What a side found in a process of its own. SystemExit with its last words, if it failed."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", CHECKPOINT_SECONDS: str(24 * 3600)}
    # One of them: TRL would take all, and with them a larger batch.
    environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    if side == "ours":  # as `python -m tunesmith.train` sets it; the peers run as torch comes
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    command = [str(python), "-m", "bench.sides", side, str(run), str(steps), device]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    side, run, count, device = sys.argv[1:]
    print(json.dumps(SIDES[side](Path(run), int(count), device)))
