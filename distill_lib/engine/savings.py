"""What a training does to need less memory. Gradients stay as they are but for rounding; moments of 8 bits do not.

slices          a batch goes through part by part, and gradients add up: mean = 1/k sum of k means            (1)
checkpointing   layers are evaluated again on the way back, and not kept
frozen_bf16     weights that only answer are kept as autocast rounds them: the same answers, half the bytes
offload         the average of weights stands in the machine's memory, not in the card's
optimizer       Adam's moments in float32, in 8 bits, or in 8 bits and paged (by bitsandbytes)
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
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


@contextlib.contextmanager
def rounded(module: nn.Module) -> Iterator[None]:
    """A block in which a frozen module is as `in_bf16` leaves it; then its weights are what they were, to the bit.

    Meanwhile they stand in the machine's memory.
    """
    whole = [(layer, name, weight, weight.device) for layer, name, weight in _rounded_weights(module)]
    in_bf16(module)
    for _, _, weight, _ in whole:
        weight.data = weight.data.cpu()
    try:
        yield
    finally:
        for layer, name, weight, device in whole:
            weight.data = weight.data.to(device)
            setattr(layer, name, weight)


def checkpoint(module: nn.Module) -> None:
    """Let all of diffusers' networks in a module evaluate their blocks again on the way back.

    Raises:
        ValueError: there is none that can.
    """
    able = [part for part in module.modules() if getattr(part, "_supports_gradient_checkpointing", False)]
    if not able:
        raise ValueError(f"checkpointing: {type(module).__name__} holds no network of diffusers that can; leave it out")
    for part in able:
        part.enable_gradient_checkpointing()


def optimizer_of(
    parameters: Mapping[str, nn.Parameter], rates: Mapping[str, float], lr: float, name: str
) -> torch.optim.Optimizer:
    """AdamW with a weight decay of 1e-4, its moments kept as `Savings.optimizer` says.

    Args:
        parameters: by name.
        rates: factors of the learning rate, by what the names of parameters start with; kept in the groups.
        lr: the learning rate. name: one of `Savings.optimizer`.

    Raises:
        ValueError: bitsandbytes is needed and is not installed.
    """
    by_factor: dict[float, list[nn.Parameter]] = {}
    for key, parameter in parameters.items():
        factor = next((x for start, x in rates.items() if key.startswith(start)), 1.0)
        by_factor.setdefault(factor, []).append(parameter)
    groups = [{"params": members, "factor": factor} for factor, members in by_factor.items()]
    if name == "adamw":
        # fused: one pass over the weights, a fifth of the time of the others on a CPU
        return torch.optim.AdamW(groups, lr=lr, weight_decay=1e-4, fused=True)
    try:
        import bitsandbytes
    except ImportError as error:
        raise ValueError(
            f"optimizer={name} needs bitsandbytes, which is not installed: `.venv/bin/pip install bitsandbytes`, or "
            "take optimizer=adamw"
        ) from error
    kind = {"adamw8bit": "AdamW8bit", "paged_adamw8bit": "PagedAdamW8bit"}[name]
    return getattr(bitsandbytes.optim, kind)(groups, lr=lr, weight_decay=1e-4)
