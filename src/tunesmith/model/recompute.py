"""Activations computed again in the backward pass instead of kept (Chen et al., 2016): less memory for more time.

Of each decoder layer only its input is kept; when the gradient arrives there, the layer runs forward once more. What is
random is drawn from the key of the pass, so the second time is the first one bit for bit.

Measured in float32 on one core, a Llama of 10 layers (20M parameters), LoRA 16 on all linears, a pass of 10 rows of 205
tokens: kept between forward and backward 33 MiB instead of 629, CPU-seconds 4.8 instead of 3.0 (a frozen weight costs
two products forward and two backward; here two more).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tunesmith.errors import EngineError
from tunesmith.model.noise import Noise


def recompute(model: nn.Module, kind: Literal["no", "layers", "offloaded"], noise: Noise) -> None:
    """Let each decoder layer of a transformers model keep its input and nothing else; "no" changes nothing.

    offloaded = the inputs are kept in main memory, pinned, until they are needed; on a CPU they lie there anyway, and
    it is the same as layers. Without gradients a layer is what it was. Names of modules and weights stay.
    EngineError (TrainingConfigError) if the model has no list of layers.
    """
    if kind != "no":
        for layer in decoder_layers(model):
            layer.forward = _twice(layer.forward, kind == "offloaded", noise)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The layers that the hidden states go through one after another: the outermost list of as many as the config says.

    A layer may hold lists too, such as experts; they stand below it.
    """
    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise EngineError(
        f"model.recompute: {type(model).__name__} has no list of {count} layers; train it with recompute 'no'",
        "TrainingConfigError",
    )


def _twice(forward: Callable[..., Any], offloaded: bool, noise: Noise) -> Callable[..., Any]:
    @wraps(forward)
    def run(hidden_states: Tensor, *others: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(hidden_states, *others, **named)
        with _main_memory() if offloaded and not _is_in_main_memory(hidden_states) else nullcontext():
            return checkpoint(
                forward,
                hidden_states,
                *others,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=lambda: (nullcontext(), noise.at(noise.key)),
                **named,
            )

    return run


def _is_in_main_memory(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _main_memory() -> AbstractContextManager[Any]:
    """What is kept meanwhile, which is a layer's input, is copied there and back."""
    return torch.autograd.graph.save_on_cpu(pin_memory=True)
