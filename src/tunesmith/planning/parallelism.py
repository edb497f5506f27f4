"""Arithmetic of many devices that needs the model or the machine; what a spec alone can break is in `spec.parts`.

With N devices in all and the degrees tensor T, pipeline P, context C, there are D = N / (T P C) replicas of the model,
and E devices share the experts of a layer. Then T P C divides N, D x micro batch divides the global batch, E divides
D x C and the number of experts, and T is 1 where E is above 1.
"""

from __future__ import annotations

from tunesmith.errors import Invalid
from tunesmith.planning.facts import ModelFacts
from tunesmith.spec.automodel import Parallelism


def refuse_uneven_experts(asked: Parallelism, facts: ModelFacts) -> None:
    """Invalid when the experts of this model cannot be shared out as asked; a dense model has none to share."""
    experts, each = facts.moe, asked.expert_parallel_size or 1
    if experts is None or each == 1:
        return
    field = f"parallelism.expert_parallel_size ({each})"
    shared = asked.data_parallel_size * asked.context_parallel_size
    if asked.tensor_parallel_size > 1:
        raise Invalid(
            f"parallelism.tensor_parallel_size ({asked.tensor_parallel_size}): Tensor parallelism is not supported for "
            f"MoE models when expert_parallel_size > 1 (it is {each}): set tensor_parallel_size to 1"
        )
    if experts.num_experts % each:
        fits = _divisors(experts.num_experts, shared)
        raise Invalid(f"{field} must divide the model's number of experts ({experts.num_experts}): {fits} would do")
    if shared % each:
        fits = _divisors(experts.num_experts, shared)
        raise Invalid(
            f"(data_parallel_size * context_parallel_size) ({shared}) must be divisible by {field}: {fits} would do"
        )


def refuse_more_than_here(field: str, devices: int, devices_here: int | None) -> None:
    """Invalid when the machine has fewer devices; None = nobody looked."""
    if devices_here is not None and devices > devices_here:
        has = f"has {devices_here}" if devices_here else "has none"
        raise Invalid(f"{field}: {devices} devices are more than this machine, which {has}; ask for at most that many")


def _divisors(*numbers: int) -> str:
    """What divides all of them, in words."""
    found = [each for each in range(1, min(numbers) + 1) if not any(number % each for number in numbers)]
    return ", ".join(map(str, found[:-1])) + f" or {found[-1]}" if len(found) > 1 else "1"
