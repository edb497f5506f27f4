"""One step of learning: sums of gradients in, updated weights out.

All trained weights have float32 masters in one flat tensor. A parameter in float32 is a view of its master, one in
another type a copy that follows each step; so are the gradients. Scaling, norm, clipping and the update are then one
pass each over one tensor, however many modules are trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tunesmith.handoff.plan import OptimizerPart


def warmup_steps(part: OptimizerPart, steps: int) -> int:
    """Steps over which the rate rises, of `steps` in all."""
    return part.warmup_steps or math.ceil(part.warmup_ratio * steps)


def learning_rate(part: OptimizerPart, step: int, steps: int) -> float:
    """The rate of step `step` of `steps` (1-based).

    Warm-up step s has peak * s / warm-up steps. The decay starts at the peak and would reach min_learning_rate one step
    after the last, so that no step is wasted at 0. With c cycles a cosine falls c times (Loshchilov & Hutter, 2017).
    """
    warm = warmup_steps(part, steps)
    if step <= warm:
        return part.learning_rate * step / warm
    if part.decay == "constant":
        return part.learning_rate
    done = (step - 1 - warm) / (steps - warm)
    left = (1 + math.cos(math.pi * (done * part.cycles % 1))) / 2 if part.decay == "cosine" else 1 - done
    return part.min_learning_rate + (part.learning_rate - part.min_learning_rate) * left


@dataclass(frozen=True, slots=True)
class Stepped:
    """What one step did."""

    learning_rate: float
    grad_norm: float
    """Of the mean gradient, before clipping."""
    applied: bool
    """False where the gradient was not finite: nothing has changed then."""


class Optimizer:
    """Owns the masters of the trained parameters, their gradients, and the running means over them.

    Weight decay leaves out what has fewer than two dimensions (norms, biases), as is the habit.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], part: OptimizerPart, steps: int) -> None:
        """The parameters, all on one device, move into the flat tensor or get a copy there."""
        self._part, self._steps = part, steps
        decayed_first = sorted(parameters.items(), key=lambda named: named[1].dim() < 2)  # stable
        self._parameters = dict(decayed_first)
        each = self._parameters.values()
        self.flat = torch.cat([parameter.detach().reshape(-1).float() for parameter in each])
        self._gradient = torch.zeros_like(self.flat)
        shapes = [parameter.shape for parameter in each]
        self._masters, self._gradients = _views(self.flat, shapes), _views(self._gradient, shapes)
        for parameter, master in zip(each, self._masters, strict=True):
            if parameter.dtype == torch.float32:
                parameter.data = master
        decayed = sum(parameter.numel() for parameter in each if parameter.dim() >= 2)
        self._groups = [
            (_learned(self.flat[place], self._gradient[place]), decay)
            for place, decay in ((slice(decayed), part.weight_decay), (slice(decayed, None), 0.0))
            if self.flat[place].numel()
        ]
        self._update = _update(part, self._groups)

    def gradient(self, loss: Tensor) -> tuple[Tensor, ...]:
        """The loss's gradient, a tensor for each parameter. Touches nothing that another thread may use."""
        return torch.autograd.grad(loss, tuple(self._parameters.values()), allow_unused=True, materialize_grads=True)

    def add(self, gradient: Sequence[Tensor]) -> None:
        """Add to the sum of this step."""
        torch._foreach_add_(self._gradients, [each.float() for each in gradient])

    def add_gradient_of(self, loss: Tensor) -> None:
        """The same in one, without a second gradient in memory: each tensor is added as soon as it is there."""
        for parameter, place in zip(self._parameters.values(), self._gradients, strict=True):
            if parameter.dtype == torch.float32:
                parameter.grad = place
        hooks = [
            parameter.register_post_accumulate_grad_hook(_adder(place))
            for parameter, place in zip(self._parameters.values(), self._gradients, strict=True)
            if parameter.dtype != torch.float32
        ]
        loss.backward()
        for hook in hooks:
            hook.remove()

    def forget(self) -> None:
        """Drop what was added since the last step."""
        self._gradient.zero_()

    def step(self, step: int, divisor: float) -> Stepped:
        """Learn from the gradients added since the last call.

        The sum is divided by `divisor`, clipped by its global L2 norm, applied, and set to zero. Where the norm is not
        finite nothing is applied.
        """
        rate = learning_rate(self._part, step, self._steps)
        norm = float(torch.linalg.vector_norm(self._gradient)) / divisor
        if math.isfinite(norm):
            self._gradient *= min(1.0, self._part.max_grad_norm / (norm + _CLIP_EPS)) / divisor
            for group in self._update.param_groups:
                group["lr"] = rate
            self._update.step()
            self._follow()
        self.forget()
        return Stepped(rate, norm, math.isfinite(norm))

    def masters(self) -> dict[str, Tensor]:
        """The float32 weights by name: views of what the next step changes."""
        return dict(zip(self._parameters, self._masters, strict=True))

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite all weights with ones of the same names and shapes."""
        for name, master in self.masters().items():
            master.copy_(weights[name])
        self._follow()

    def state(self) -> dict[str, Tensor]:
        """The running means over the flat weights and the count of steps, on the CPU; empty before the first step."""
        return {
            f"{number}.{name}": value.detach().cpu()
            for number, (learned, _) in enumerate(self._groups)
            for name, value in self._update.state.get(learned, {}).items()
            if isinstance(value, Tensor)
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned. The weights themselves are set by `set_weights`."""
        found: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            number, _, name = key.partition(".")
            found.setdefault(int(number), {})[name] = value
        self._update.load_state_dict({"state": found, "param_groups": self._update.state_dict()["param_groups"]})

    def _follow(self) -> None:
        """Copies in other types take over what the masters have become."""
        pairs = [
            (parameter.data, master)
            for parameter, master in zip(self._parameters.values(), self._masters, strict=True)
            if parameter.dtype != torch.float32
        ]
        if pairs:
            torch._foreach_copy_(*map(list, zip(*pairs, strict=True)))


_CLIP_EPS = 1e-6
"""As in torch.nn.utils.clip_grad_norm_, so that both clip alike."""


def _views(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    pieces = flat.split([shape.numel() for shape in shapes])
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _learned(weights: Tensor, gradient: Tensor) -> nn.Parameter:
    learned = nn.Parameter(weights)
    learned.grad = gradient
    return learned


def _adder(place: Tensor) -> Callable[[Tensor], None]:
    def add(parameter: Tensor) -> None:
        assert parameter.grad is not None, "called after the gradient was accumulated"
        place.add_(parameter.grad)
        parameter.grad = None

    return add


def _update(part: OptimizerPart, groups: Sequence[tuple[nn.Parameter, float]]) -> torch.optim.Optimizer:
    """adam: weight decay joins the gradient (coupled L2), as in sgd; adamw: it shrinks the weights by itself."""
    told = [{"params": [learned], "weight_decay": decay} for learned, decay in groups]
    if part.name == "sgd":
        return torch.optim.SGD(told, lr=part.learning_rate, fused=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[part.name]
    return kind(told, lr=part.learning_rate, betas=(part.beta1, part.beta2), eps=part.eps, fused=True)


SCALE_START, SCALE_GROWTH, STEPS_TO_GROW = 65536.0, 2.0, 2000
"""As in torch.amp.GradScaler."""


def next_scale(scale: float, good_steps: int, applied: bool) -> tuple[float, int]:
    """What the loss is multiplied by from the next step on, so that fp16 gradients neither vanish nor overflow.

    Halved after a step whose gradient overflowed, doubled after many good ones in a row (Micikevicius et al., 2018);
    with the count of good steps since it last changed.
    """
    if not applied:
        return scale / SCALE_GROWTH, 0
    if good_steps + 1 == STEPS_TO_GROW:
        return scale * SCALE_GROWTH, 0
    return scale, good_steps + 1
