"""Before the first step: is there memory for the longest pass? What will not fit fails in seconds, with the numbers.

On a GPU the pass is run, with room kept for the optimizer's state, and one that does not fit says so. On a CPU the
kernel would end the process, and perhaps another one: so a small part of the pass is run first, what it holds is
counted, and only what should fit is run whole. Nothing stays of it: no gradient is added and nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tunesmith.data.store import Rows
from tunesmith.errors import EngineError
from tunesmith.handoff.plan import Plan
from tunesmith.model.attention import LONGEST
from tunesmith.train.batches import Layout, Pass
from tunesmith.train.crew import Crew
from tunesmith.train.memory import available_bytes, peak_bytes

Learn = Callable[[Pass], object]
"""Forward and backward through a pass, as in a step; gradients stand in what it returns, or the caller forgets them."""

MASTER_BYTES = GRADIENT_BYTES = MEAN_BYTES = 4
"""Of each trained weight, in float32. The running means come into memory with the first step."""
SHARES = (1 / 8, 1 / 4)
"""Of the longest pass's tokens, from which the whole is foreseen where it has few rows."""
AMPLE = 4
"""Times what an eighth lets expect: then there is no need to look closer, which costs up to a pass (a row of 700 tokens
through a 135M Llama: the pass 9 CPU-seconds, the closer look 12)."""
COUNTS = (1, 3)
"""Of its rows, where it has more than these: the first two alone may peak at another moment than many do."""
WANT = ("allocate memory", "out of memory", "ALLOC_FAILED")
"""What torch says of it where it has no class: main memory, CUDA's driver, and its libraries."""
FEWEST_TOKENS, ROUND_TOKENS = 16, 8
"""A length below is not worth advising; those that are advised are rounded down."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that learning takes beside what is in memory already: `fixed`, and so much for each token of a pass."""

    fixed: float
    per_token: float

    def of(self, tokens: int) -> int:
        return round(self.fixed + self.per_token * tokens)

    def tokens_in(self, has: int) -> int:
        """The longest pass that fits."""
        tokens = int((has - self.fixed) / self.per_token) if self.per_token > 0 else 0
        return tokens - tokens % ROUND_TOKENS


def check_room(model: nn.Module, plan: Plan, device: torch.device) -> None:
    """EngineError if what is trained, its gradient and running means will not fit beside the model, whatever the rows.

    Asked before they are made, for on a CPU the kernel would end the process.
    """
    has = available_bytes(device)
    part, each = plan.adapter, MASTER_BYTES + GRADIENT_BYTES + MEAN_BYTES * plan.optimizer.means
    if part is None:
        known = [weight for weight in model.parameters() if weight.dtype == torch.float32]
        count, least = sum(weight.numel() for weight in model.parameters()), sum(weight.nbytes for weight in known)
        what, way_out = "all weights", "finetuning_type lora trains few of them; or take a smaller model"
    else:
        linears = [module for name, module in model.named_modules() if name in set(part.modules)]
        a_rank = sum(sum(module.weight.shape) for module in linears if isinstance(module, nn.Linear))
        count, least = part.rank * a_rank, 0
        fits = (has or 0) // (each * a_rank) if a_rank else 0
        what = f"adapters of rank {part.rank:,}"
        way_out = f"training.lora.rank {fits:,} fits" if fits else "adapt fewer modules (training.lora.target_modules)"
    needs = each * count - least  # a float32 weight is its own master
    if has is not None and needs > has:
        where, code = _place(device)
        raise EngineError(
            f"{what}: {count:,} trained weights with gradient and running means take {_said(needs)} beside the model, "
            f"and {where} has {_said(has)} left: {way_out}",
            code,
        )


def rehearse(
    learn: Learn,
    trained: Iterable[Tensor],
    rows: Rows,
    plan: Plan,
    layout: Layout,
    crew: Crew,
) -> None:
    """Run the longest pass that a step can have, shared by the crew, as the loop will.

    EngineError (CudaError on a GPU, TrainingEnvironmentError on a CPU) that says what it needs, what there is, and the
    smallest change that would fit.
    """
    weights, device = list(trained), layout.device
    chosen = layout.longest(rows.lengths, len(rows) if plan.data.packing else plan.schedule.rows_per_step)
    (parts,) = layout.passes(rows, chosen)
    tokens = sum(part.ids_BT.numel() for part in parts)
    state = MEAN_BYTES * plan.optimizer.means * sum(weight.numel() for weight in weights)
    copies = (len(parts) - 1) * sum(weight.nbytes for weight in weights)

    def foreseen() -> Need:
        need = foresee(learn, rows, chosen, layout)
        return Need(need.fixed + state + copies, need.per_token)

    if device.type == "cpu":
        has = available_bytes(device)
        if has is not None and not _ample(learn, rows, chosen, layout, has - state - copies):
            need = foreseen()
            if need.of(tokens) > has:
                raise refusal(need, has, rows.lengths[chosen].tolist(), tokens, plan, device)
    try:
        _run(learn, parts, crew, weights[0].new_empty(state if device.type == "cuda" else 0, dtype=torch.uint8))
    except (MemoryError, RuntimeError) as error:
        if not is_want_of_memory(error):
            raise
        error.__traceback__ = None  # its frames hold what was computed so far
    else:
        return
    if device.type == "cuda":
        torch.cuda.empty_cache()
    has = available_bytes(device) or 0
    raise refusal(foreseen(), has, rows.lengths[chosen].tolist(), tokens, plan, device)


def _run(learn: Learn, parts: Sequence[Pass], crew: Crew, _held: Tensor) -> None:
    """The pass, while what comes into memory later has its place there."""
    crew.share(learn, parts)


def foresee(learn: Learn, rows: Rows, chosen: Sequence[int], layout: Layout) -> Need:
    """What the pass of these rows, longest first, needs, from two smaller ones.

    Memory grows with tokens: no layer keeps a square of a row that is longer than LONGEST. Where there are several
    rows, the smaller passes have one and three of them; else rows with every so many of their tokens. Of a few rows
    that are not long the longest is run whole, and the others need as much.
    """
    longest = int(rows.lengths[chosen[0]])
    if len(chosen) > COUNTS[1]:
        small, large = (layout.in_one(rows, chosen[:count]) for count in COUNTS)
    elif longest <= 2 * LONGEST:
        return Need(0, peak_bytes(partial(learn, layout.in_one(rows, chosen[:1]))) / longest)
    else:
        least = (LONGEST + 1) / longest  # a shorter row would be computed in another way
        shares = (max(SHARES[0], least), max(SHARES[1], 2 * least))
        small, large = (layout.in_one(_Thinned(rows, share), chosen) for share in shares)
    less, more = (peak_bytes(partial(learn, part)) for part in (small, large))
    per_token = (more - less) / max(1, large.ids_BT.numel() - small.ids_BT.numel())
    return Need(max(0.0, less - per_token * small.ids_BT.numel()), per_token)


def _ample(learn: Learn, rows: Rows, chosen: Sequence[int], layout: Layout, has: int) -> bool:
    """Is there so much that a look at an eighth of the pass's tokens is enough?"""
    part = layout.in_one(_Thinned(rows, SHARES[0]), chosen)
    return peak_bytes(partial(learn, part)) / SHARES[0] * AMPLE <= has


def refusal(need: Need, has: int, lengths: Sequence[int], tokens: int, plan: Plan, device: torch.device) -> EngineError:
    """Why the run cannot begin, and what would let it."""
    where, code = _place(device)
    rows = f"{len(lengths)} rows" if len(lengths) > 1 else "1 row"
    needed, left = _said(need.of(tokens)), _said(has)
    return EngineError(
        f"the longest pass ({rows}, {tokens:,} tokens) needs {needed} beside the model, and {where} has {left} left: "
        f"{_way_out(need, has, max(lengths), plan)}",
        code,
    )


def _way_out(need: Need, has: int, longest: int, plan: Plan) -> str:
    limit = plan.data.sequence_limit
    rows, fits = max(1, plan.schedule.tokens_per_pass // limit), need.tokens_in(has)
    less_kept = (
        "; or compute activations twice (unsloth: training.use_gradient_checkpointing true)"
        if plan.model.recompute == "no"
        else ""
    )
    if rows > 1 and fits >= max(limit, longest):
        return (
            f"batch.micro_batch_size {min(rows - 1, fits // limit)} in place of {rows} fits (unsloth: "
            f"batch.per_device_train_batch_size), and gives the same result{less_kept}"
        )
    if fits >= FEWEST_TOKENS:
        alone = "batch.micro_batch_size 1 with " if rows > 1 else ""
        return f"{alone}training.max_seq_length {fits} fits (unsloth: model.max_seq_length){less_kept}"
    return f"no row is short enough; use a smaller model, or a machine with more memory{less_kept}"


def _place(device: torch.device) -> tuple[str, str]:
    """What wants memory, and the kind of the error."""
    return ("the GPU", "CudaError") if device.type == "cuda" else ("this machine", "TrainingEnvironmentError")


def _said(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


class _Thinned(Rows):
    """Rows that have a share of their tokens, evenly, so that as large a part is trained on."""

    def __init__(self, rows: Rows, share: float) -> None:
        self._rows = rows
        self.lengths = np.maximum(2, (rows.lengths * share).astype(np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    def ids(self, row: int) -> npt.NDArray[np.int32]:
        return self._rows.ids(row)[self._kept(row)]

    def mask(self, row: int) -> npt.NDArray[np.uint8]:
        return self._rows.mask(row)[self._kept(row)]

    def _kept(self, row: int) -> npt.NDArray[np.int64]:
        return np.linspace(0, self._rows.lengths[row] - 1, self.lengths[row]).round().astype(np.int64)


def is_want_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in WANT)
