"""Training on a GPU: ours beside TRL's SFTTrainer, a Llama of 1B parameters, random, in sequences of 2,048 tokens.

    python -m bench.train_gpu                              # LoRA of rank 16 on all linear layers
    python -m bench.train_gpu --weights all                # all weights
    python -m bench.train_gpu --rows whole                 # each sequence one row, so TRL needs no mask
    python -m bench.train_gpu --device cpu --size tiny     # the same code where there is no GPU; no figure

Without CUDA it says so and exits with 2. A step holds 8 sequences of several rows, packed by ours, and all sides take
the same. Each side runs in a process of its own; two warm-up steps are left out, and a step is over when the GPU is.
TRL runs in `.venv-peer` (`bench/peer.py`) with torch's attention as ours does, which takes a mask for packed rows, and
with FlashAttention where `pip install flash-attn` was done there. What is trained has float32 masters on all sides.

Utilisation is what the method needs (`bench.made.operations_per_token`: 4 operations per weight and token for LoRA, 6
for all weights) against the data sheet's dense rate, and against a large product measured in the same run.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.made import FROZEN, TRAINED, furnished, made_up_rows, operations_per_token, prepared, random_llama, skewed
from bench.peer import peer_python
from bench.sides import ALPHA, RANK, TRL_BY_ATTENTION, WARM_UP_STEPS, Found, measured, steps_of, tokens_of
from tunesmith.handoff.plan import Plan, ResultPart

SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "1b": (
        {
            "vocab_size": 128_256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131_072,
        },
        2048,
    ),
    "tiny": (
        {
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        128,
    ),
}
"""Shape of the model (1b: that of Llama 3.2 1B, 1.24 billion parameters) and tokens of a sequence."""
DATA_SHEET = {"H100 80GB HBM3": 989, "H200": 989, "A100": 312, "L40S": 362, "RTX 4090": 165}
"""TFLOP/s of dense bf16 products, by a part of the device's name."""
WORDS = {
    "ours": "ours",
    "trl-sdpa": "TRL, torch's attention",
    "trl-flash": "TRL padding-free, FlashAttention",
}
UTILISATION_AT_LEAST, SPEED_AT_LEAST = 0.45, 1.15
MORE_ROWS = 1.3
"""Times the tokens that the steps need, so that no step comes out shorter."""


def main() -> int:
    """Run the sides and print a table; 2 where there is no such device."""
    asked = _arguments()
    import torch

    if asked.device == "cuda" and not torch.cuda.is_available():
        print(
            "bench.train_gpu: torch finds no CUDA device here, so nothing was measured. "
            "`--device cpu --size tiny` runs the same code on the processor",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory() as directory:
        run = _run(Path(directory), asked)
        _say_what(run, asked)
        sides = ["ours"] if asked.no_peer else ["ours", *_peers()]
        python = {"ours": Path(sys.executable)} | {side: peer_python() for side in sides[1:]}
        found = {
            side: measured(side, WORDS[side], python[side], run, asked.steps, device=asked.device) for side in sides
        }
        best = measured("product", "a product", Path(sys.executable), run, asked.steps, device=asked.device)
        operations = operations_per_token(run, WARM_UP_STEPS, FROZEN if asked.weights == "lora" else TRAINED)
    _say(found, operations, best["per_second"], _sheet_rate(asked.device))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=list(SIZES), default="1b")
    parser.add_argument("--weights", choices=("lora", "all"), default="lora")
    parser.add_argument("--rows", choices=("packed", "whole"), default="packed")
    parser.add_argument("--sequences", type=int, default=8, help="of a step")
    parser.add_argument("--at-once", type=int, default=4, help="sequences of a pass; divides those of a step")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    asked = parser.parse_args()
    if asked.sequences % asked.at_once:
        parser.error(f"--sequences ({asked.sequences}) must be a multiple of --at-once ({asked.at_once})")
    return asked


def _peers() -> list[str]:
    """TRL's sides that can run here."""
    flash = subprocess.run([peer_python(), "-c", "import flash_attn"], check=False, capture_output=True)
    return [side for side in TRL_BY_ATTENTION if side != "trl-flash" or flash.returncode == 0]


def _run(directory: Path, asked: argparse.Namespace) -> Path:
    """The run and its steps; rows are packed so that a step has the sequences that were asked for."""
    import torch

    from tunesmith.model.load import resolve_compute

    shape, limit = SIZES[asked.size]
    steps, draw = asked.steps + WARM_UP_STEPS, random.Random(1)
    compute = resolve_compute("auto", torch.device(asked.device))
    wanted = asked.sequences * (steps + 1)
    lengths = [limit] * wanted if asked.rows == "whole" else _lengths(round(MORE_ROWS * wanted * limit), limit, draw)
    model = random_llama(directory / "model", shape, "bfloat16" if compute == "bf16" else "float32")
    run = furnished(directory / "run", model, made_up_rows(lengths, shape["vocab_size"], draw))
    given = _plan(asked, shape["num_hidden_layers"], limit, compute)
    found = prepared(run, given, steps)
    if found.packs and found.packs.per_step != asked.sequences:
        rows = round(asked.sequences * len(lengths) / found.packs.packs)
        schedule = given.schedule.model_copy(update={"rows_per_step": rows})
        prepared(run, given.model_copy(update={"schedule": schedule}), steps)
    assert {len(step) for step in steps_of(run)} == {asked.sequences}, "a step holds other than the asked sequences"
    return run


def _lengths(tokens: int, longest: int, draw: random.Random) -> list[int]:
    found: list[int] = []
    while sum(found) < tokens:
        found += skewed(100, longest, draw)
    return found


def _plan(asked: argparse.Namespace, layers: int, limit: int, compute: str) -> Plan:
    from tests.models import linear_names
    from tests.plans import plan

    given = plan(
        model={"compute": compute},
        data={"chat_template": "", "sequence_limit": limit, "packing": asked.rows == "packed"},
        adapter={"rank": RANK, "alpha": ALPHA, "modules": linear_names(layers)},
        optimizer={"name": "adamw", "learning_rate": 1e-4},
        schedule={"rows_per_step": asked.sequences, "tokens_per_pass": asked.at_once * limit},
    )
    if asked.weights == "lora":
        return given
    return given.model_copy(update={"adapter": None, "result": ResultPart(form="model")})


def _sheet_rate(device: str) -> float | None:
    """Operations a second that the maker promises; None where that is not known."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else ""
    return next((rate * 1e12 for part, rate in DATA_SHEET.items() if part in name), None)


def _say_what(run: Path, asked: argparse.Namespace) -> None:
    import torch

    steps = steps_of(run)[WARM_UP_STEPS:]
    rows = sum(len(sequence["seq_lengths"]) for step in steps for sequence in step)
    name = torch.cuda.get_device_name() if asked.device == "cuda" else "the processor: no figure for a GPU"
    what = f"LoRA of rank {RANK}" if asked.weights == "lora" else "all weights"
    print(f"{name}; {asked.size}, {what}, {Plan.read(run / 'plan.json').model.compute}")
    print(
        f"{asked.steps} steps of {asked.sequences} sequences, {asked.at_once} at once; {rows / len(steps):.0f} rows "
        f"and {sum(tokens_of(steps)) / len(steps):,.0f} real tokens a step\n",
        flush=True,
    )


def _say(found: dict[str, Found], operations: float, measured_rate: float, sheet_rate: float | None) -> None:
    """The table, and what was wanted."""
    print(f"{'':40}{'tokens/s':>10}{'peak GB':>10}{'of the product':>16}{'of the sheet':>14}")
    for side, took in found.items():
        reached = took["per_second"] * operations
        sheet = f"{reached / sheet_rate:.0%}" if sheet_rate else "-"
        print(
            f"{WORDS[side]:40}{took['per_second']:10,.0f}{took['gb']:10.2f}{reached / measured_rate:16.0%}{sheet:>14}"
        )
    print(f"\n{operations / 1e6:,.1f} MFLOP a token; a large product reaches {measured_rate / 1e12:.2f} TFLOP/s")
    ours = found["ours"]["per_second"]
    _line("utilisation", ours * operations / (sheet_rate or measured_rate), UTILISATION_AT_LEAST)
    for side in found.keys() & TRL_BY_ATTENTION:
        _line(f"speed, of {WORDS[side]}", ours / found[side]["per_second"], SPEED_AT_LEAST)


def _line(title: str, value: float, wanted: float) -> None:
    print(f"{title:60}{value:6.2f}   wanted: at least {wanted:g}{'' if value >= wanted else ', not reached'}")


if __name__ == "__main__":
    sys.exit(main())
