"""The sides of bench/train.py, each in a process of its own: `python -m bench.sides SIDE RUN STEPS`.

A side trains on the very rows of `steps.jsonl`, step by step, and prints as JSON what it took after the warm-up steps.
TRL's sides run in an environment of their own (`bench/peer.py`), where nothing of Tunesmith is installed; so nothing of
it is imported here but inside its own side.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP_STEPS = 2
RANK, ALPHA = 16, 32
Found = dict[str, float]


class Clock:
    """Marks the ends of steps; rates count from the end of the warm-up to the last mark."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        """A step is over."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._marks.append((time.perf_counter(), used.ru_utime + used.ru_stime))

    def found(self, tokens_of_steps: list[int]) -> Found:
        """Real tokens per second and per CPU-second, and the most memory that the process held."""
        start, end = self._marks[WARM_UP_STEPS - 1], self._marks[-1]
        tokens = sum(tokens_of_steps[WARM_UP_STEPS : len(self._marks)])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {"per_second": tokens / (end[0] - start[0]), "per_cpu_second": tokens / (end[1] - start[1]), "gb": peak}


def steps_of(run: Path) -> list[list[dict[str, list[int]]]]:
    """The rows of each step as token ids and labels, -100 where nothing is learned."""
    return [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]


def tokens_of(steps: list[list[dict[str, list[int]]]]) -> list[int]:
    """Real tokens of each step."""
    return [sum(len(row["input_ids"]) for row in step) for step in steps]


def ours(run: Path, count: int) -> Found:
    """The recipe itself, timed through its own progress events."""
    import torch

    from tunesmith.handoff.plan import Plan
    from tunesmith.handoff.prepared import Prepared
    from tunesmith.train.crew import Crew
    from tunesmith.train.loop import Job
    from tunesmith.train.recipes.sft import sft
    from tunesmith.train.signals import Doorbell

    clock, found = Clock(), Found()
    tokens = tokens_of(steps_of(run))

    def log(event: Any) -> None:
        if event.kind != "progress":
            return
        assert event.tokens == sum(tokens[: event.step]), f"step {event.step} holds other rows than the peers'"
        clock.mark()
        if event.step == WARM_UP_STEPS + count:
            found.update(clock.found(tokens))

    plan, prepared = Plan.read(run / "plan.json"), Prepared.read(run / "data.json")
    sft(Job(run, plan, prepared, torch.device("cpu"), log, Doorbell(), Crew(torch.get_num_threads())))
    return found


def peft_loop(run: Path, count: int) -> Found:
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
    clock, steps = Clock(), steps_of(run)
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


def trl(side: str) -> Callable[[Path, int], Found]:
    """One of TRL's sides."""

    def train(run: Path, count: int) -> Found:
        import datasets
        from transformers import TrainerCallback
        from trl import SFTConfig, SFTTrainer

        clock, steps = Clock(), steps_of(run)[: WARM_UP_STEPS + count]

        class Marks(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                clock.mark()

        told = {"per_device_train_batch_size": len(steps[0]), **TRL[side]}
        config = SFTConfig(
            output_dir=str(run / side),
            num_train_epochs=1,
            use_cpu=True,
            train_sampling_strategy="sequential",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **told,
        )
        trainer = SFTTrainer(
            model=str(run / "inputs/model"),
            args=config,
            train_dataset=datasets.Dataset.from_list([row for step in steps for row in step]),
            peft_config=_lora(),
            callbacks=[Marks()],
        )
        trainer.train()
        assert trainer.state.global_step == len(steps), "TRL took other steps than the rows were cut for"
        return clock.found(tokens_of(steps))

    return train


def _lora() -> Any:
    import peft

    return peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")


def matmul(run: Path, count: int) -> Found:
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
    clock = Clock()
    with torch.no_grad():
        for _ in range(WARM_UP_STEPS + count):
            for _ in range(config["num_hidden_layers"]):
                for x, weight in pairs:
                    _ = linear(x, weight) @ weight
            clock.mark()
    flop = 4 * mean * config["num_hidden_layers"] * sum(outputs * inputs for outputs, inputs in shapes)
    found = clock.found([flop] * (WARM_UP_STEPS + count))
    return {"per_cpu_second": found["per_cpu_second"] / 1e9, "per_second": found["per_second"] / 1e9}


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


SIDES: dict[str, Callable[[Path, int], Found]] = {
    "ours": ours,
    "peft": peft_loop,
    "matmul": matmul,
    **{side: trl(side) for side in TRL},
}

if __name__ == "__main__":
    side, run, count = sys.argv[1:]
    print(json.dumps(SIDES[side](Path(run), int(count))))
