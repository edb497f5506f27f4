"""What transformers and PEFT say: the independent answers that the engine's are compared with."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tunesmith.generate.adapters import Adapter
from tunesmith.generate.engine import Engine
from tunesmith.generate.request import Piece, Request
from tunesmith.generate.sampling import Sampling

TIE = 1e-4
"""Where the two best logits are closer than this, either token is right."""
WAIT_SECONDS = 60

GREEDY = Sampling(temperature=0)
PROMPTS = [
    [7, 8, 9],
    [11],
    list(range(20, 60)),
    [5, 5, 5, 5, 5, 5],
    [101, 3, 77, 240, 12, 9, 31],
    list(range(300, 150, -1)),
]


def greedy(model: Any, prompt: Sequence[int], most: int) -> tuple[list[int], list[float]]:
    """transformers' own tokens, and at each the distance between its two best logits."""
    out = model.generate(
        input_ids=torch.tensor([list(prompt)]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=most,
        output_scores=True,
        return_dict_in_generate=True,
    )
    best = [score[0].topk(2).values for score in out.scores]
    return out.sequences[0, len(prompt) :].tolist(), [float(two[0] - two[1]) for two in best]


def assert_same_choice(tokens: Sequence[int], reference: tuple[list[int], list[float]]) -> None:
    """Equal token by token, up to the first place where the reference itself was undecided."""
    for place, (ours, theirs, gap) in enumerate(zip(tokens, *reference, strict=False)):
        if ours != theirs:
            assert gap < TIE, f"token {place}: {ours} and not {theirs}, which wins by {gap}"
            return
    assert len(tokens) == len(reference[0]), "the answer has another length than the reference"


class Asked:
    """A request under way, and what came of it."""

    def __init__(self, engine: Engine, prompt: Sequence[int], most: int, adapter: Adapter | None = None, **more: Any):
        self._pieces: queue.Queue[Piece] = queue.Queue()
        self.pieces: list[Piece] = []
        settings = {"sampling": GREEDY, **more}
        self.request = Request(list(prompt), most_tokens=most, emit=self._pieces.put, adapter=adapter, **settings)
        engine.submit(self.request)

    def next(self) -> Piece:
        self.pieces.append(self._pieces.get(timeout=WAIT_SECONDS))
        return self.pieces[-1]

    def finish(self) -> Asked:
        while not self.pieces or self.pieces[-1].finish is None:
            self.next()
        self.failure = self.pieces[-1].error
        return self

    @property
    def tokens(self) -> list[int]:
        return [token for piece in self.pieces for token in piece.tokens]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


def write_peft_adapter(model: Any, directory: Path, rank: int, targets: list[str], seed: int, **config: Any) -> Any:
    """A random adapter made and saved by PEFT; returns PEFT's own model."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, task_type="CAUSAL_LM", **config)
    adapted = get_peft_model(model, lora)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    adapted.save_pretrained(directory)
    return adapted.eval()
