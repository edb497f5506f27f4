"""One step of learning: sums of gradients in, updated weights out.

All trained weights lie in one flat float32 tensor, of which the model's parameters are views; so are their gradients.
Scaling, norm, clipping and Adam are then one pass each over one tensor, however many modules are adapted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from tunesmith.handoff.plan import OptimizerPart

KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
"""adam: weight decay joins the gradient (coupled L2); adamw: it shrinks the weights by itself."""


def learning_rate(part: OptimizerPart, step: int, steps: int) -> float:
    """The rate of step `step` of `steps` (1-based).

    Warm-up step s has peak * s / warmup_steps. The decay starts at the peak and would reach min_learning_rate one step
    after the last, so that no step is wasted at 0.
    """
    if step <= part.warmup_steps:
        return part.learning_rate * step / part.warmup_steps
    if part.decay == "constant":
        return part.learning_rate
    done = (step - 1 - part.warmup_steps) / (steps - part.warmup_steps)
    left = (1 + math.cos(math.pi * done)) / 2 if part.decay == "cosine" else 1 - done
    return part.min_learning_rate + (part.learning_rate - part.min_learning_rate) * left


class Optimizer:
    """Owns the trained parameters' memory and Adam's state."""

    def __init__(self, parameters: Iterable[nn.Parameter], part: OptimizerPart, steps: int) -> None:
        """Moves the parameters, all of one type and device, into one flat tensor, in the order given."""
        self._part, self._steps = part, steps
        shaped = list(parameters)
        self.flat = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in shaped]))
        self.flat.grad = torch.zeros_like(self.flat)
        self._parameters, self._gradients = shaped, list[Tensor]()
        start = 0
        for parameter in shaped:
            place = slice(start, start + parameter.numel())
            parameter.data = self.flat.data[place].view_as(parameter)
            self._gradients.append(self.flat.grad[place].view_as(parameter))
            start = place.stop
        self._adam = KINDS[part.name](
            [self.flat],
            lr=part.learning_rate,
            betas=(part.beta1, part.beta2),
            eps=part.eps,
            weight_decay=part.weight_decay,
            fused=True,
        )

    def gradient(self, loss: Tensor) -> tuple[Tensor, ...]:
        """The loss's gradient, a tensor for each parameter. Touches nothing that another thread may use."""
        return torch.autograd.grad(loss, self._parameters)

    def add(self, gradient: Sequence[Tensor]) -> None:
        """Add to the sum of this step."""
        torch._foreach_add_(self._gradients, gradient)

    def step(self, step: int, trained_tokens: int) -> tuple[float, float]:
        """Learn from the gradients added since the last call; returns (learning rate, gradient norm before clipping).

        The sum is divided by `trained_tokens`, clipped by its global L2 norm, applied, and set to zero. Where the norm
        is not finite nothing is applied.
        """
        rate = learning_rate(self._part, step, self._steps)
        gradient = self.flat.grad
        assert gradient is not None, "the flat gradient lives as long as the optimizer"
        norm = float(torch.linalg.vector_norm(gradient)) / trained_tokens
        if not math.isfinite(norm):
            return rate, norm
        gradient *= min(1.0, self._part.max_grad_norm / (norm + _CLIP_EPS)) / trained_tokens
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        gradient.zero_()
        return rate, norm

    def state(self) -> dict[str, Tensor]:
        """Adam's running means over the flat parameters and its count of steps, on the CPU; empty before the first."""
        return {name: value.detach().cpu() for name, value in self._adam.state.get(self.flat, {}).items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned. The weights themselves are the caller's to set."""
        self._adam.load_state_dict({"state": {0: state}, "param_groups": self._adam.state_dict()["param_groups"]})


_CLIP_EPS = 1e-6
"""As in torch.nn.utils.clip_grad_norm_, so that both clip alike."""
