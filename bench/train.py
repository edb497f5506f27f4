"""Training speed: ours, TRL's SFTTrainer and a plain PEFT loop on the same rows in the same steps, one thread each.

    python -m bench.train                                   # a random Llama of 22M parameters, rows of skewed length
    python -m bench.train --model DIR --rows train.jsonl    # real weights, real rows
    python -m bench.train --sides ours trl-flat-fp32        # some of them

LoRA of rank 16 on all linear layers, a global batch of 8. Each side runs in a process of its own, in turns; figures are
medians of what was measured after two warm-up steps. Tokens are real ones, without padding, and CPU-seconds are what
repeats on a machine that does other work. TRL runs in `.venv-peer` (`bench/peer.py`): as its documentation starts it,
and as it is fastest here. The floating-point operations are those that the method needs:

    4 per weight of a linear layer and real token, 12 x heads x head size per layer and pair of tokens (attention),
    4 per weight of the output head and trained token

and the rate that they are held against is that of the model's own matrix products, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path

from bench.made import furnished, made_up_rows, operations_per_token, prepared, random_llama, skewed
from bench.peer import peer_python
from bench.sides import ALPHA, RANK, SIDES, TRL, WARM_UP_STEPS, Found, measured, steps_of

SMALL = {
    "vocab_size": 8192,
    "hidden_size": 384,
    "intermediate_size": 1280,
    "num_hidden_layers": 10,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
}
"""21.8M parameters, of which 18.7M lie in linear layers; the output head is the embedding."""
ROWS, LONGEST = 400, 1024
"""199 tokens on average, and 38% of a batch padded to its longest row is real."""
BATCH = 8
WORDS = {
    "ours": "ours",
    "peft": "plain PEFT loop, padded",
    "trl": "TRL as documented: bf16 autocast, checkpointing, padded",
    "trl-flat-bf16": "TRL padding-free, bf16 weights",
    "trl-flat-fp32": "TRL padding-free, fp32",
    "trl-single-fp32": "TRL, a row at a time, fp32",
}
AT_LEAST = {"documented": 5.5, "best": 2.5, "rate": 0.6}
MEMORY_AT_MOST = 0.6


def main() -> None:
    """Run the sides in turns and print a table."""
    asked = _arguments()
    pythons = dict.fromkeys(SIDES, Path(sys.executable))
    if any(side in TRL for side in asked.sides):
        pythons |= dict.fromkeys(TRL, peer_python())
    with tempfile.TemporaryDirectory() as directory:
        run = _prepared_run(Path(directory) / "run", asked)
        _say_what(run, asked)
        results: dict[str, list[Found]] = {side: [] for side in ("matmul", *asked.sides)}
        for turn in range(asked.repeats):
            for side in list(results)[:: -1 if turn % 2 else 1]:
                results[side].append(
                    measured(side, WORDS.get(side, side), pythons[side], run, asked.steps, threads=asked.threads)
                )
        medians = {
            side: {key: statistics.median(one[key] for one in found) for key in found[0]}
            for side, found in results.items()
        }
        _say(medians, results, operations_per_token(run, WARM_UP_STEPS))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a Llama's checkpoint directory; default: a small random one")
    parser.add_argument("--rows", type=Path, help="JSON lines; default: made-up rows of skewed length")
    parser.add_argument("--compute", choices=("auto", "bf16", "fp32"), default="auto", help="of ours and of the loop")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=list(WORDS), default=list(WORDS))
    return parser.parse_args()


def _prepared_run(run: Path, asked: argparse.Namespace) -> Path:
    """A run of Llama's linear layers, and its steps."""
    import torch

    from tests.models import linear_names
    from tests.plans import plan
    from tunesmith.model.load import resolve_compute

    model = asked.model.resolve() if asked.model else random_llama(run.parent / "model", SMALL)
    furnished(run, model, asked.rows.read_text() if asked.rows else _made_up_rows())
    template, config = model / "chat_template.jinja", json.loads((model / "config.json").read_text())
    modules = linear_names(config["num_hidden_layers"])
    given = plan(
        model={"compute": resolve_compute(asked.compute, torch.device("cpu"))},
        data={"chat_template": template.read_text() if template.exists() else "", "sequence_limit": 2048},
        adapter={"rank": RANK, "alpha": ALPHA, "modules": modules},
        schedule={"rows_per_step": BATCH, "tokens_per_pass": 2048},
    )
    prepared(run, given, asked.steps + WARM_UP_STEPS)
    return run


def _made_up_rows() -> str:
    draw = random.Random(1)
    return made_up_rows(skewed(ROWS, LONGEST, draw), SMALL["vocab_size"], draw)


def _say_what(run: Path, asked: argparse.Namespace) -> None:
    import torch

    compute = json.loads((run / "plan.json").read_text())["model"]["compute"]
    steps = steps_of(run)[WARM_UP_STEPS:]
    lengths = [[len(row["input_ids"]) for row in step] for step in steps]
    real = sum(map(sum, lengths)) / sum(len(step) * max(step) for step in lengths)
    known = torch.cpu.get_capabilities()
    flags = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "neon", "arm_bf16") if known.get(name)]
    tokens = sum(map(sum, lengths)) / len(steps)
    print(f"ours and the loop in {compute}; of this processor's vector extensions: {', '.join(flags)}")
    print(
        f"{asked.threads} thread(s), {asked.steps} steps of {BATCH} rows, {tokens:.0f} tokens a step, longest row "
        f"{max(map(max, lengths))}, {real:.0%} of a padded batch real; medians of {asked.repeats}\n",
        flush=True,
    )


def _say(medians: dict[str, Found], results: dict[str, list[Found]], operations: float) -> None:
    print(f"{'':58}{'tokens/s':>9}{'per CPU-s':>11}{'(lowest, highest)':>20}{'peak GB':>9}")
    for side, words in WORDS.items():
        if side in medians:
            found, each = medians[side], [one["per_cpu_second"] for one in results[side]]
            between = f"({min(each):,.0f}, {max(each):,.0f})"
            print(
                f"{words:58}{found['per_second']:9,.0f}{found['per_cpu_second']:11,.0f}{between:>20}{found['gb']:9.2f}"
            )
    if "ours" not in medians:
        return
    ours, rate = medians["ours"], medians["matmul"]["per_cpu_second"]
    reached = ours["per_cpu_second"] * operations / 1e9
    print(f"\n{operations / 1e6:.0f} MFLOP a token; the model's own products reach {rate:.1f} GFLOP per CPU-second")
    _line("share of that rate", reached / rate, AT_LEAST["rate"])
    if "trl" in medians:
        _line(
            "speed, of TRL as documented",
            ours["per_cpu_second"] / medians["trl"]["per_cpu_second"],
            AT_LEAST["documented"],
        )
        _line("peak memory, of TRL as documented", ours["gb"] / medians["trl"]["gb"], MEMORY_AT_MOST, at_most=True)
    if rivals := [side for side in medians if side in TRL]:
        best = max(rivals, key=lambda side: medians[side]["per_cpu_second"])
        title = f"speed, of TRL at its best here ({WORDS[best].removeprefix('TRL').strip(', ')})"
        _line(title, ours["per_cpu_second"] / medians[best]["per_cpu_second"], AT_LEAST["best"])


def _line(title: str, value: float, wanted: float, at_most: bool = False) -> None:
    met = value <= wanted if at_most else value >= wanted
    bound = "at most" if at_most else "at least"
    print(f"{title:72}{value:6.2f}   wanted: {bound} {wanted:g}{'' if met else ', not reached'}")


if __name__ == "__main__":
    main()
