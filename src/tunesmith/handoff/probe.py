"""The probe: what a trained model says to one prompt, so that a server can prove that it serves these weights.

It lies in the artifact beside the weights. Two machines that compute in bf16 differ by tenths of a nat, so a fixed
tolerance would either refuse right weights or pass wrong ones; what the base says to the same prompt is the measure.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.handoff.base import Compute, Handed, HandedFile

PROBE_FILE = "tunesmith_probe.json"

EXACT_NATS = 1e-3
"""Any log-probability may differ by this when both sides compute in float32."""
ROUNDING_NATS = 0.25
"""Log-probabilities may differ by this on average when a side computes in bf16. Seen on a 135M Llama of 30 layers: 0.09
to 0.16 between float32 and bf16, and as much between two ways to compute attention in bf16."""
PART_OF_THE_WAY = 0.25
"""Where training moved the model far, the served one may be off by this part of the way from the base."""


class ProbedToken(Handed):
    """A token that may follow the prompt, and what both models think of it, in nats."""

    token: int
    trained: float
    base: float


class Probe(HandedFile):
    """The most likely next tokens of the trained model after a prompt."""

    prompt_ids: tuple[int, ...]
    compute: Compute
    """What the trainer computed in."""
    top: tuple[ProbedToken, ...]


def disagreement(probe: Probe, served: Sequence[float], compute: Compute) -> str:
    """Why a model with these log-probabilities for the probe's tokens is not the trained one; "" if it may be."""
    gaps = [abs(value - each.trained) for value, each in zip(served, probe.top, strict=True)]
    if probe.compute == compute == "fp32":
        return "" if max(gaps) <= EXACT_NATS else f"log-probabilities differ by up to {max(gaps):.4f} nats"
    mean = sum(gaps) / len(gaps)
    way = sum(abs(each.base - each.trained) for each in probe.top) / len(probe.top)
    allowed = max(ROUNDING_NATS, PART_OF_THE_WAY * way)
    if mean <= allowed:  # false for NaN too
        return ""
    return (
        f"log-probabilities differ by {mean:.3f} nats on average, {allowed:.3f} are allowed "
        f"({way:.3f} lie between base and trained model)"
    )
