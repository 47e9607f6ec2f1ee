"""What a training does to need less memory. Gradients stay as they are but for rounding; moments of 8 bits do not.

slices          a batch goes through part by part, and gradients add up: mean = 1/k sum of k means            (1)
checkpointing   layers are evaluated again on the way back, and not kept
frozen_bf16     weights that only answer are kept as autocast rounds them: the same answers, half the bytes
offload         the average of weights stands in the machine's memory, not in the card's
optimizer       Adam's moments in float32, in 8 bits, or in 8 bits and paged (by bitsandbytes)
"""

from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated
from torch import nn

from distill_lib.engine.bounds import Count


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Savings:
    """Which of them a training uses; see the module. `slices` is k of (1)."""

    slices: Count = 1
    checkpointing: bool = False
    frozen_bf16: bool = False
    offload: bool = False
    optimizer: Literal["adamw", "adamw8bit", "paged_adamw8bit"] = "adamw"


def in_bf16(module: nn.Module) -> None:
    """Keep the weights of a frozen module's convolutions and linear layers in bfloat16.

    Autocast rounds just these at every call, so that under it the module answers to the bit as before. Without it the
    module can no longer answer: float32 goes into layers of bfloat16.
    """
    for layer, name, weight in _rounded_weights(module):
        setattr(layer, name, nn.Parameter(weight.detach().bfloat16(), requires_grad=False))


def _rounded_weights(module: nn.Module) -> list[tuple[nn.Module, str, nn.Parameter]]:
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    return [(layer, name, weight) for layer in layers for name, weight in layer.named_parameters(recurse=False)]
