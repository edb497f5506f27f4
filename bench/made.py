"""What the benchmarks of training train on: random Llamas, made-up rows, runs whose steps the peers take too.

Beside a run's own files lies `steps.jsonl`: a line for each step with its sequences as token ids, labels (-100 where
nothing is learned) and the lengths of the rows in each.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.sides import linear_shapes, steps_of
from tunesmith.data.packs import PackedRows
from tunesmith.data.prepare import prepare
from tunesmith.data.schedule import rows_of_step
from tunesmith.data.store import Rows
from tunesmith.handoff.plan import FirstOf, Plan
from tunesmith.handoff.prepared import Prepared

SHORTEST = 16
SPREAD = (4.9, 0.9)
"""Of the logarithm of a row's tokens: 199 on average where the longest may have 1,024."""
SPECIAL = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
FROZEN, TRAINED = 4, 6
"""Operations per weight of a linear layer and token: forward, for the input's gradient, and for the weight's own."""
EPOCHS = 100
"""More than any benchmark takes: the number of steps says when it is over."""


def random_llama(directory: Path, shape: dict[str, Any], dtype: str = "float32") -> Path:
    """A checkpoint of this shape, with a tokenizer to whose vocabulary made-up words belong; returns `directory`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig
    from transformers.utils import logging

    from tests.models import tiny_tokenizer

    tiny_tokenizer(directory)
    tokenizer = Tokenizer(models.WordLevel(_vocabulary(shape["vocab_size"]), unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(directory / "tokenizer.json"))
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    logging.disable_progress_bar()
    config = LlamaConfig(tie_word_embeddings=True, **ids, **shape)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(directory)
    return directory


def _vocabulary(size: int) -> dict[str, int]:
    return {**SPECIAL, **{f"w{number}": number for number in range(len(SPECIAL), size)}}


def skewed(count: int, longest: int, draw: random.Random) -> Iterator[int]:
    """Tokens of so many rows, most of them short."""
    for _ in range(count):
        yield min(longest, max(SHORTEST, round(draw.lognormvariate(*SPREAD))))


def made_up_rows(lengths: Iterable[int], vocabulary: int, draw: random.Random) -> str:
    """Prompts and completions of equal length, of words drawn evenly; each row has that many tokens in all."""
    lines = []
    for length in lengths:
        words = [f"w{draw.randrange(len(SPECIAL), vocabulary)}" for _ in range(length - 1)]  # and the end token
        half = length // 2
        lines.append(json.dumps({"prompt": " ".join(words[:half]), "completion": " ".join(words[half:])}))
    return "\n".join(lines)


def furnished(run: Path, model: Path, rows: str) -> Path:
    """A run's inputs; returns `run`."""
    (run / "inputs/data").mkdir(parents=True)
    (run / "inputs/model").symlink_to(model)
    (run / "inputs/data/train.jsonl").write_text(rows)
    return run


def prepared(run: Path, given: Plan, steps: int) -> Prepared:
    """The run as control leaves it, one step longer than `steps`, and `steps.jsonl` for the peers.

    The last step is never done: `bench.sides.ours` leaves before it, so that nothing is exported.
    """
    schedule = given.schedule.model_copy(update={"stop": FirstOf(epochs=EPOCHS, steps=steps + 1)})
    given = given.model_copy(update={"schedule": schedule})
    given.write(run / "plan.json")
    found = prepare(run, given, lambda _event: None)
    rows = Rows(run, found.training)
    with (run / "steps.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            sequences = [_as_peers_take_it(rows, each) for each in _sequences(run, found, given, step)]
            file.write(json.dumps(sequences) + "\n")
    return found


def _sequences(run: Path, found: Prepared, given: Plan, step: int) -> list[list[int]]:
    """The rows of each sequence of a step: one, or those of a pack."""
    seed, packs = given.schedule.seed, found.packs
    if packs is None:
        return [[int(row)] for row in rows_of_step(step, found.training.rows, given.schedule.rows_per_step, seed)]
    packed = PackedRows.read(run, packs)
    return [packed.rows(int(pack)).tolist() for pack in rows_of_step(step, packs.packs, packs.per_step, seed)]


def _as_peers_take_it(rows: Rows, sequence: list[int]) -> dict[str, list[int]]:
    ids = [token for row in sequence for token in rows.ids(row).tolist()]
    learned = [on for row in sequence for on in rows.mask(row).tolist()]
    labels = [token if on else -100 for token, on in zip(ids, learned, strict=True)]
    return {"input_ids": ids, "labels": labels, "seq_lengths": [int(rows.lengths[row]) for row in sequence]}


def operations_per_token(run: Path, warm_up: int, per_weight: int = FROZEN) -> float:
    """Floating-point operations that a real token of the measured steps needs in a Llama with tied embeddings.

    `per_weight` of a linear layer, 12 x heads x head size per layer and pair of tokens (attention), and `per_weight` of
    the output head at trained tokens.
    """
    config = json.loads((run / "inputs/model/config.json").read_text())
    sequences = [sequence for step in steps_of(run)[warm_up:] for sequence in step]
    lengths = [length for sequence in sequences for length in sequence["seq_lengths"]]
    trained = sum(label != -100 for sequence in sequences for label in sequence["labels"])
    shapes = linear_shapes(config)
    weights = config["num_hidden_layers"] * sum(outputs * inputs for outputs, inputs in shapes)
    pairs = sum(length * (length + 1) / 2 for length in lengths)
    attention = 12 * shapes[0][0] * config["num_hidden_layers"] * pairs
    head = per_weight * config["hidden_size"] * config["vocab_size"] * trained
    return per_weight * weights + (attention + head) / sum(lengths)
